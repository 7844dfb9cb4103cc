"""Speed of a text encoder beside transformers' model of its sizes: classifying texts, and a step of training.

Both sides have the same weights and read the same texts, of lengths as reviews have them. In float32 they have to give
the same logits before anything is timed.
"""

from __future__ import annotations

import copy
import importlib
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.cards import card_of
from orchard.data.text_inputs import EncodedText, TextInputs
from orchard.data.tokenizers import BERT_SPECIALS
from orchard.data.train_tokenizers import train_wordpiece
from orchard.errors import UsageError, unknown
from orchard.inference.cost import multiply_adds
from orchard.inference.fast import TOLERANCE, pick_precision
from orchard.inference.timing import MATRIX, check, compared, matrix_product, time_in_turn, training_step
from orchard.models import create_model
from orchard.tasks.text_classification.pipeline import in_batches
from orchard.weights.official import export_official
from orchard.weights.reference import randomise

HEAD = "text-classification"
WORDS = 400  # of which texts are made
TEXTS = 256  # that are classified
MEDIAN, SPREAD, LONGEST = 40, 0.7, 126  # words in a text: log-normal, as in reviews of films


def bench(
    name: str, against: str, mode: str, *, batch: int | None, precision: Any, rounds: int | None, tokens: int
) -> dict[str, Any]:
    """Time classification of `TEXTS` texts, or a training step. Raises UsageError for a model that no package has."""
    if card_of(name).name != "bert":
        raise UsageError(f"no package has {name} as a classifier of texts; BERT has a peer")
    if against != "transformers":
        raise unknown("peer", against, ["transformers"])
    if mode == "generation":
        raise UsageError(f"{name} classifies texts; --mode inference and --mode training are timed")
    texts = make_texts(TEXTS)
    tokenizer = train_wordpiece(texts, 2000, tuple(BERT_SPECIALS))
    torch.manual_seed(0)
    model: Any = create_model(name, head=HEAD, num_classes=2, vocabulary=tokenizer.vocabulary,
                              pad=tokenizer.specials["pad"], context=512).eval()  # fmt: skip
    randomise(model, lambda: model(torch.ones(2, 8, dtype=torch.int64)), seed=0)
    inputs = TextInputs(tokenizer, 128, model.template)
    twin = bert_of(model)
    if mode == "training":
        return bench_training(name, model, twin, inputs, texts, batch or 32, precision, rounds or 5)
    return bench_inference(name, model, twin, inputs, texts, rounds or 3)


def make_texts(count: int) -> list[str]:
    """Texts of made words, always the same."""
    chance = np.random.default_rng(0)
    words = ["".join(chance.choice(list("abcdefghijklmnop"), chance.integers(2, 9))) for _ in range(WORDS)]
    lengths = np.clip(chance.lognormal(np.log(MEDIAN), SPREAD, count), 3, LONGEST).astype(int)
    return [" ".join(chance.choice(words, length)) for length in lengths]


def bert_of(model: nn.Module) -> Any:
    """BertForSequenceClassification with the sizes and the weights of a BERT."""
    transformers: Any = importlib.import_module("transformers")
    c: Any = model.config
    settings = transformers.BertConfig(
        vocab_size=c.vocabulary, hidden_size=c.width, num_hidden_layers=c.depth, num_attention_heads=c.heads,
        intermediate_size=c.hidden, max_position_embeddings=c.context, type_vocab_size=c.segments, pad_token_id=c.pad,
        hidden_dropout_prob=c.dropout, attention_probs_dropout_prob=c.attention_dropout, layer_norm_eps=c.norm_eps,
        num_labels=c.num_classes,
    )  # fmt: skip
    twin = transformers.BertForSequenceClassification(settings)
    twin.eval()
    twin.load_state_dict(export_official(model, "hf"))
    return twin


def bench_inference(
    name: str, model: nn.Module, twin: Any, inputs: TextInputs, texts: list[str], rounds: int
) -> dict[str, Any]:
    """All texts from words to logits. The peer by default is its own pipeline as documented, one text at a time; at its
    best a loop of length-sorted batches as large as ours, with its fused attention."""
    transformers: Any = importlib.import_module("transformers")
    tokenizer: Any = inputs.tokenizer
    words = transformers.BertTokenizerFast(tokenizer_object=tokenizer.inner, model_max_length=inputs.length)
    pipeline = transformers.TextClassificationPipeline(model=twin, tokenizer=words, device=-1)

    @torch.inference_mode()
    def ours() -> Tensor:
        rows = [inputs.lay_out(ids) for ids in inputs.tokenizer.encode_many(texts)]
        return in_batches(rows, lambda some: _logits(model, inputs, some))

    @torch.inference_mode()
    def best() -> Tensor:
        rows = [inputs.lay_out(ids) for ids in inputs.tokenizer.encode_many(texts)]
        return in_batches(rows, lambda some: _logits(twin, inputs, some))

    with torch.inference_mode():
        check("ours in float32", ours(), best(), TOLERANCE["fp32"])

    def documented() -> Any:
        return pipeline(texts, truncation=True, max_length=inputs.length)

    sides = {"ours": ours, "peer_best": best, "peer_default": documented}
    medians = time_in_turn({**sides, "matrix": matrix_product("fp32")}, rounds)
    how = {"ours": "float32, length-sorted batches", "peer_best": "float32, length-sorted batches, fused attention",
           "peer_default": "pipeline as documented, float32"}  # fmt: skip
    rate = 2 * MATRIX**3 / medians["matrix"]
    rows = [inputs.lay_out(ids) for ids in inputs.tokenizer.encode_many(texts)]
    tokens, segments = inputs.batch(rows[:1])
    macs = multiply_adds(model, tokens.values, tokens.mask, segments) / len(rows[0].ids) * sum(len(r.ids) for r in rows)
    return {
        **compared(name, "transformers", medians, how, samples=len(texts)), "mode": "inference", "precision": "fp32",
        "texts": len(texts), "rounds": rounds, "matrix_rate": rate, "limit_fraction": 2 * macs / medians["ours"] / rate,
    }  # fmt: skip


def _logits(network: Any, inputs: TextInputs, rows: list[EncodedText]) -> Tensor:
    """(B, K) of rows, whichever side it is."""
    tokens, segments = inputs.batch(rows)
    if hasattr(network, "template"):
        return network(tokens.values, tokens.mask, segments)  # type: ignore[no-any-return]
    found: Tensor = network(input_ids=tokens.values, attention_mask=tokens.mask.long(), token_type_ids=segments).logits
    return found


def bench_training(
    name: str,
    model: nn.Module,
    twin: Any,
    inputs: TextInputs,
    texts: list[str],
    batch: int,
    precision: Any,
    rounds: int,
) -> dict[str, Any]:
    """A forward pass, cross-entropy, a backward pass and AdamW. Ours has texts of like lengths in a batch, as training
    makes them; the peer has the same batch at its best, and by default one of texts as they come."""
    chosen = pick_precision(precision)
    rows = [inputs.lay_out(ids) for ids in inputs.tokenizer.encode_many(texts)]
    ranked = sorted(rows, key=lambda row: len(row.ids))
    first = (len(ranked) - batch) // 2
    alike, mixed = ranked[first : first + batch], rows[:batch]
    labels = torch.arange(batch) % 2

    def loss_of(some: list[EncodedText]) -> Any:
        return lambda network, _: F.cross_entropy(_logits(network, inputs, some).float(), labels)

    with torch.no_grad():
        check("ours in float32", _logits(model, inputs, alike), _logits(twin, inputs, alike), TOLERANCE["fp32"])
    none, bf16 = torch.empty(0), chosen == "bf16"
    sides = {
        "ours": training_step(copy.deepcopy(model), loss_of(alike), none, bf16=bf16, fused=True),
        "peer_best": training_step(copy.deepcopy(twin), loss_of(alike), none, bf16=bf16, fused=True),
        "peer_default": training_step(twin, loss_of(mixed), none, bf16=False, fused=False),
    }
    medians = time_in_turn(sides, rounds)
    words = f"fused AdamW, texts of like lengths, {'autocast to bf16' if bf16 else 'float32'}"
    how = {"ours": words, "peer_best": words, "peer_default": "eager float32, texts as they come"}
    counts = {"tokens_ours": sum(len(r.ids) for r in alike), "tokens_default": sum(len(r.ids) for r in mixed)}
    found = compared(name, "transformers", medians, how, samples=batch)
    per_token = {"ours": counts["tokens_ours"], "peer_default": counts["tokens_default"]}
    ratio = (medians["peer_default"] / per_token["peer_default"]) / (medians["ours"] / per_token["ours"])
    return {**found, **counts, "ratio_default": ratio, "mode": "training", "precision": chosen, "batch": batch,
            "rounds": rounds}  # fmt: skip
