"""Speed of a Transformer beside transformers' MarianMTModel of its sizes: beam search, and a step of training.

Both sides have the same weights. In float32 they have to write the same texts before anything is timed.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.cards import card_of
from orchard.errors import OrchardError, UsageError, unknown
from orchard.inference.beam import Beam, Hypothesis, at_least, beam_search, mean_penalty
from orchard.inference.cost import multiply_adds
from orchard.inference.fast import TOLERANCE, pick_precision
from orchard.inference.timing import bench_tokens, check, compared, time_in_turn
from orchard.models import create_model
from orchard.weights.official import export_official
from orchard.weights.reference import randomise

SOURCE = 24  # tokens of each source
BEAM, END = 4, 1
MARIAN = {"norm": "post", "final_norm": False, "interleaved": False, "output_bias": False, "pad": 0}


def bench(
    name: str, against: str, mode: str, *, batch: int | None, precision: Any, rounds: int | None, tokens: int
) -> dict[str, Any]:
    """Time generation, or a training step. Raises UsageError for a model that no package has."""
    if card_of(name).name != "transformer":
        raise UsageError(f"no package has {name}; of this task the Transformer has a peer")
    if against != "transformers":
        raise unknown("peer", against, ["transformers"])
    torch.manual_seed(0)
    model = create_model(name, **MARIAN).eval()
    config: Any = model.config
    source = torch.randint(2, config.vocabulary, (batch or 8, SOURCE))
    randomise(model, lambda: model(source, source), seed=0)
    twin = marian_of(model)
    if mode == "generation":
        return bench_generation(name, model, twin, source, min(tokens, config.context - 1), rounds or 3)
    if mode == "training":
        return bench_training(name, model, twin, source, precision, rounds or 11)
    raise UsageError(f"of {name}, --mode generation and --mode training are timed")


def marian_of(model: nn.Module) -> Any:
    """MarianMTModel with the sizes and the weights of a Transformer."""
    from transformers import MarianConfig, MarianMTModel

    c: Any = model.config
    settings = MarianConfig(
        vocab_size=c.vocabulary, decoder_vocab_size=c.vocabulary, max_position_embeddings=c.context, d_model=c.width,
        encoder_layers=c.depth, decoder_layers=c.depth, encoder_attention_heads=c.heads,
        decoder_attention_heads=c.heads, encoder_ffn_dim=c.hidden, decoder_ffn_dim=c.hidden, scale_embedding=True,
        activation_function="swish" if c.activation == "silu" else c.activation, dropout=c.dropout,
        attention_dropout=c.inner_dropout, activation_dropout=c.inner_dropout, pad_token_id=c.pad, eos_token_id=END,
        decoder_start_token_id=c.pad, forced_eos_token_id=None,
    )  # fmt: skip
    twin: Any = MarianMTModel(settings)
    twin.eval()
    twin.load_state_dict(export_official(model, "hf"))
    return twin


def bench_generation(name: str, model: Any, twin: Any, source: Tensor, tokens: int, rounds: int) -> dict[str, Any]:
    """Beam search for texts of exactly `tokens` tokens, which do not end before; float32 on both sides."""
    first = torch.zeros(len(source), dtype=torch.int64)

    def ours(count: int) -> list[list[Hypothesis]]:
        beam = Beam(BEAM, count, penalty=mean_penalty(1.0), restrictions=(at_least(count, END),))
        with torch.no_grad():
            state = model.start(len(source), count, source=source)
        return beam_search(model, state, first, end=END, beam=beam)

    def theirs(count: int) -> Tensor:
        written: Tensor = twin.generate(
            input_ids=source, attention_mask=torch.ones_like(source), num_beams=BEAM, max_new_tokens=count,
            min_new_tokens=count, do_sample=False, length_penalty=1.0,
        )  # fmt: skip
        return written[:, 1:]

    if [list(hypotheses[0].tokens) for hypotheses in ours(12)] != theirs(12).tolist():
        raise OrchardError("the sides write different texts; nothing was timed")
    sides = {"ours": lambda: ours(tokens), "peer_default": lambda: theirs(tokens), "peer_best": lambda: theirs(tokens)}
    medians = time_in_turn(sides, rounds)
    words = f"float32, a beam of {BEAM}"
    how = {"ours": words, "peer_default": words, "peer_best": words}
    facts = {"mode": "generation", "precision": "fp32", "batch": len(source), "tokens": tokens, "rounds": rounds}
    return compared(name, "transformers", medians, how, samples=len(source) * tokens) | facts


def bench_training(
    name: str, model: nn.Module, twin: nn.Module, source: Tensor, precision: Any, rounds: int
) -> dict[str, Any]:
    """A forward pass, the mean cross-entropy of targets as long as the sources, a backward pass and AdamW."""
    chosen = pick_precision(precision)
    with torch.no_grad():
        check("ours in float32", model(source, source), _logits(twin, source), TOLERANCE["fp32"])

    def loss(network: nn.Module, source: Tensor) -> Tensor:
        logits = model(source, source) if network is model else _logits(network, source)
        return F.cross_entropy(logits.float().flatten(0, 1), source.roll(-1, 1).flatten())

    cost = multiply_adds(model, source, source)
    return bench_tokens(
        name, "transformers", model, twin, loss, source, precision=chosen, rounds=rounds, macs=cost
    )  # fmt: skip


def _logits(twin: nn.Module, source: Tensor) -> Tensor:
    return twin(input_ids=source, attention_mask=torch.ones_like(source), decoder_input_ids=source).logits
