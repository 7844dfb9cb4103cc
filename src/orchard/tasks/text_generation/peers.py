"""Speed of sequence models beside the peer: writing, one token after the other, and a step of training.

Both sides have the same weights and write greedily. In float32 they have to write the same tokens before anything is
timed, and what runs in fewer bits has to give nearly the same logits.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.cards import card_of
from orchard.errors import OrchardError, UsageError, unknown
from orchard.inference.cost import multiply_adds
from orchard.inference.decoding import Decoder, Precision, one_call, pays_to_compile, writing_precision
from orchard.inference.fast import TOLERANCE, pick_precision
from orchard.inference.fast import Precision as FastPrecision
from orchard.inference.hardware import native_bf16
from orchard.inference.native_step import DIFFERENCE
from orchard.inference.timing import Side, bench_tokens, check, compared, time_in_turn
from orchard.models import configuration, create_model
from orchard.tasks.text_generation.ctranslate2_peer import ctranslate2_sides
from orchard.weights.official import export_official
from orchard.weights.reference import randomise

PROMPT = 32
READ_BYTES = 2**29  # of a tensor whose sum measures the memory
TRIED = 24  # tokens that each set of the peer's switches writes to be chosen by
PEERS = ("transformers", "ctranslate2", "recompute")


def bench_generation(
    name: str,
    against: str,
    *,
    batch: int = 1,
    tokens: int = 256,
    precision: Precision | Literal["auto"] = "auto",
    rounds: int = 3,
) -> dict[str, Any]:
    """Time variant `name` writing `tokens` tokens for `batch` prompts beside a peer.

    `transformers`: `generate` of GPT2LMHeadModel, as documented (eager, float32, its cache) and with the best of its
    public switches; a painter is stood for by the GPT-2 of its shape. `ctranslate2`: the same GPT-2 by CTranslate2, in
    float32 and at its best in our precision. `recompute`: the loop of EasyNLP's painter, by a
    stand-in of our own that reads the whole sequence again for every token. The share of the limit is that of the
    memory's read rate: the bytes of the weights that every token has to read, over the time of a token.
    """
    if against not in PEERS:
        raise unknown("peer of generation", against, PEERS)
    torch.manual_seed(0)
    painter = card_of(name).task != "text-generation"
    own = painter and against == "recompute"
    model = create_model(name).eval() if own else sequence_twin(name, PROMPT + tokens)
    config: Any = model.config
    prompts = torch.randint(config.vocabulary, (batch, PROMPT))
    randomise(model, lambda: model(prompts), seed=0)
    precision = writing_precision(model, precision)
    plain = Decoder(model, batch, PROMPT + tokens, precision="fp32", compiled=False)
    compiled = pays_to_compile(model, precision)
    fast = Decoder(model, batch, PROMPT + tokens, precision=precision, compiled=compiled)
    expected = plain.prefill(prompts.tolist())[:batch]
    check("ours made fast", fast.prefill(prompts.tolist())[:batch], expected, DIFFERENCE[precision])
    most_likely = write(plain, prompts, TRIED)
    if against == "ctranslate2":
        sides, how = ctranslate2_sides(transformers_twin(model), prompts, most_likely, tokens, precision)
    elif against == "transformers":
        sides, how = _transformers_sides(model, prompts, tokens, most_likely)
    else:
        sides, how = _recompute_sides(model, prompts, tokens, most_likely)
    sides = {"ours": lambda: write(fast, prompts, tokens), **sides}
    kernels = "compiled" if compiled else "one native call a step" if one_call(model) else "eager"
    how["ours"] = f"{precision}, memory of fixed size, {kernels}"
    many = torch.ones(READ_BYTES // 4)
    medians = time_in_turn({**sides, "memory": many.sum}, rounds)
    rate = READ_BYTES / medians["memory"]

    facts = {"mode": "generation", "precision": precision, "batch": batch, "tokens": tokens, "rounds": rounds}
    return {
        **compared(name, against, medians, how, samples=batch * tokens),
        **facts,
        "read_rate": rate,
        "limit_fraction": weight_bytes_of_a_token(model, precision) * tokens / medians["ours"] / rate,
    }


def write(decoder: Decoder, prompts: Tensor, count: int) -> Tensor:
    """The most likely `count` tokens after each prompt, (B, count)."""
    rows = len(prompts)
    written = [decoder.prefill(prompts.tolist()).argmax(-1)]
    while len(written) < count:
        written.append(decoder.decode_step(written[-1]).argmax(-1))
    return torch.stack(written, 1)[:rows].cpu()


def weight_bytes_of_a_token(model: Any, precision: str) -> int:
    """Bytes of every matrix that a token is multiplied with; of tables only a row is read."""
    size = {"fp32": 4, "bf16": 2, "int8": 1}[precision]
    maps = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    tied = model.token.weight.numel() if getattr(model.config, "tied_head", False) else 0
    return size * (maps + int(tied))


def _transformers_sides(
    model: nn.Module, prompts: Tensor, tokens: int, expected: Tensor
) -> tuple[dict[str, Side], dict[str, str]]:
    """GPT2LMHeadModel with our weights: as documented, and the fastest of its switches."""
    documented = transformers_twin(model)

    def call(peer: Any, count: int, **switches: Any) -> Callable[[], Tensor]:
        def once() -> Tensor:
            with torch.no_grad():
                written = peer.generate(
                    prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=count, min_new_tokens=count,
                    do_sample=False, **switches,
                )  # fmt: skip
            return written[:, PROMPT:]

        return once

    _same(call(documented, TRIED)(), expected)
    ways: dict[str, tuple[Any, dict[str, Any]]] = {}
    for precision in ("fp32", "bf16") if native_bf16("cpu") else ("fp32",):  # products in software take minutes
        cast = copy.deepcopy(documented).to(torch.bfloat16 if precision == "bf16" else torch.float32)
        compiled = copy.deepcopy(cast)
        compiled.forward = torch.compile(compiled.forward)
        ways[f"{precision}, eager, its growing cache"] = cast, {}
        ways[f"{precision}, eager, static cache"] = cast, {"cache_implementation": "static"}
        ways[f"{precision}, compiled, static cache"] = compiled, {"cache_implementation": "static"}
    seconds = {}
    for how, (peer, switches) in ways.items():
        short = call(peer, TRIED, **switches)
        short()
        began = time.perf_counter()
        short()
        seconds[how] = time.perf_counter() - began
    best = min(seconds, key=lambda how: seconds[how])
    peer, switches = ways[best]
    sides: dict[str, Side] = {
        "peer_default": call(documented, tokens),
        "peer_best": call(peer, tokens, **switches),
    }
    return sides, {"peer_default": "eager float32, its growing cache", "peer_best": best}


def transformers_twin(model: nn.Module) -> Any:
    """GPT2LMHeadModel of a GPT's shape, with its weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    c: Any = model.config
    settings = GPT2Config(
        vocab_size=c.vocabulary, n_positions=c.context, n_embd=c.width, n_layer=c.depth, n_head=c.heads,
        tie_word_embeddings=c.tied_head, bos_token_id=0, eos_token_id=None, pad_token_id=0, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    twin: Any = GPT2LMHeadModel(settings)
    twin.eval()
    twin.load_state_dict(export_official(model, "hf"))
    return twin


def sequence_twin(name: str, context: int) -> nn.Module:
    """The GPT that a variant is, or that has the shape of a painter: its core, and a head over its codes."""
    config = configuration(name)
    if card_of(name).task == "text-generation":
        return create_model(name, context=max(context, config.context)).eval()
    shape = {key: getattr(config, key) for key in ("width", "depth", "heads")}
    return create_model("gpt2", **shape, vocabulary=config.codes, context=context, tied_head=False).eval()


def bench_sequence_training(
    name: str, against: str, *, batch: int = 4, tokens: int = 288, precision: FastPrecision = "auto", rounds: int = 5
) -> dict[str, Any]:
    """Time one training step of variant `name`, or of the GPT of a painter's shape, beside transformers.

    A step is a forward pass, the mean cross entropy of the next token, a backward pass and AdamW. The peer at its best
    has our precision and a fused optimizer, by default it runs eagerly in float32. The share of the limit is that of
    the rate of one large matrix product.
    """
    if against != "transformers":
        raise unknown("peer of training", against, ["transformers"])
    chosen = pick_precision(precision)
    torch.manual_seed(0)
    model = sequence_twin(name, tokens)
    config: Any = model.config
    sequences = torch.randint(config.vocabulary, (batch, tokens + 1))
    inputs, targets = sequences[:, :-1], sequences[:, 1:].flatten()
    randomise(model, lambda: model(inputs), seed=0)
    twin = transformers_twin(model)
    with torch.no_grad():
        check("ours in float32", model(inputs), twin(inputs).logits, TOLERANCE["fp32"])

    def loss(network: nn.Module, tokens: Tensor) -> Tensor:
        out = network(tokens)
        logits: Tensor = out if isinstance(out, Tensor) else out.logits
        return F.cross_entropy(logits.float().flatten(0, 1), targets)

    cost = multiply_adds(model, inputs)
    return bench_tokens(name, against, model, twin, loss, inputs, precision=chosen, rounds=rounds, macs=cost)


def _recompute_sides(
    model: nn.Module, prompts: Tensor, tokens: int, expected: Tensor
) -> tuple[dict[str, Side], dict[str, str]]:
    """The whole sequence read again for every token; at its best with the weights in bf16, where that helps."""
    _same(recompute(model, prompts, TRIED), expected)
    precision = "bf16" if native_bf16("cpu") else "fp32"
    best = copy.deepcopy(model).to(torch.bfloat16) if precision == "bf16" else model
    sides: dict[str, Side] = {
        "peer_default": lambda: recompute(model, prompts, tokens),
        "peer_best": lambda: recompute(best, prompts, tokens),
    }
    words = "nothing remembered"
    return sides, {"peer_default": f"eager float32, {words}", "peer_best": f"eager {precision}, {words}"}


@torch.no_grad()
def recompute(model: nn.Module, prompts: Tensor, count: int) -> Tensor:
    """The most likely `count` tokens after each prompt, (B, count), each after a pass over the whole sequence so far.

    It stands in for the loop of EasyNLP's painter, which is not run here: what costs in it is kept.
    """
    sequence = prompts
    for _ in range(count):
        sequence = torch.cat([sequence, model(sequence)[:, -1].argmax(-1, keepdim=True)], 1)
    return sequence[:, prompts.shape[1] :]


def _same(got: Tensor, expected: Tensor) -> None:
    if not torch.equal(got, expected):
        place = int((got != expected).any(0).nonzero()[0])
        raise OrchardError(f"the sides write different tokens from number {place} on; nothing was timed")


def bench(
    name: str, against: str, mode: str, *, batch: int | None, precision: Any, rounds: int | None, tokens: int
) -> dict[str, Any]:
    """Time generation, or a training step."""
    if mode == "generation":
        return bench_generation(name, against, batch=batch or 1, tokens=tokens, precision=precision, rounds=rounds or 3)
    if mode != "training":
        raise UsageError(f"of {name}, --mode generation and --mode training are timed")
    return bench_sequence_training(name, against, batch=batch or 4, precision=precision, rounds=rounds or 11)
