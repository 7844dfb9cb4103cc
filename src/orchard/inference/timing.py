"""Speed beside the peer, in one run.

Both sides get the same weights, are shown to compute the same thing, and are then timed turn by turn in one process, so
that whatever else the machine does meets both. The machine's own matrix product takes its turn too: what share of
its rate a model reaches says how much is left to gain.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from orchard.errors import OrchardError
from orchard.inference.fast import relative_difference
from orchard.inference.hardware import cpu_name

Side = Callable[[], object]
Mode = Literal["inference", "training"]
MATRIX = 2048  # side of the square matrices whose product measures the machine
WARM_UP = 2


def compared(
    name: str, peer: str, medians: Mapping[str, float], how: Mapping[str, str], *, samples: int
) -> dict[str, Any]:
    """What every bench says of the sides in `how`, each of which does `samples` in the time of its median."""
    sides = {
        side: {"median_s": medians[side], "throughput": samples / medians[side], "how": words}
        for side, words in how.items()
    }
    return {
        "name": name,
        "peer": peer,
        "device": f"{cpu_name()}, {torch.get_num_threads()} threads",
        **sides,
        "ratio_default": medians["peer_default"] / medians["ours"],
        "ratio_best": medians["peer_best"] / medians["ours"],
    }


Loss = Callable[[Any, Tensor], Tensor]  # of a network and what it is given


def steps_of_pictures(
    model: nn.Module, loss: Loss, peer: nn.Module, peer_loss: Loss, images: Tensor, precision: str
) -> tuple[dict[str, Side], dict[str, str]]:
    """A training step of ours, of the peer with our switches, and of the peer without; how each runs, in words."""
    packed, bf16 = images.contiguous(memory_format=torch.channels_last), precision == "bf16"

    def laid_out(network: nn.Module) -> nn.Module:
        return copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    words = f"channels-last, fused AdamW, {'autocast to bf16' if bf16 else 'float32'}"
    sides = {
        "ours": training_step(laid_out(model), loss, packed, bf16=bf16, fused=True),
        "peer_best": training_step(laid_out(peer), peer_loss, packed, bf16=bf16, fused=True),
        "peer_default": training_step(copy.deepcopy(peer), peer_loss, images, bf16=False, fused=False),
    }
    return sides, {"ours": words, "peer_best": words, "peer_default": "eager float32"}


def bench_tokens(
    name: str,
    peer: str,
    model: nn.Module,
    twin: nn.Module,
    loss: Loss,
    tokens: Tensor,
    *,
    precision: str,
    rounds: int,
    macs: float,
) -> dict[str, Any]:
    """Time a training step on `tokens` (B, T) of ours, of `twin` with our switches, and of it in eager float32.

    `macs` are the multiply-adds of a forward pass. The share of the limit is that of one large matrix product.
    """  # fmt: skip
    bf16 = precision == "bf16"
    sides = {
        "ours": training_step(model, loss, tokens, bf16=bf16, fused=True),
        "peer_best": training_step(copy.deepcopy(twin), loss, tokens, bf16=bf16, fused=True),
        "peer_default": training_step(twin, loss, tokens, bf16=False, fused=False),
        "matrix": matrix_product(precision),
    }
    medians = time_in_turn(sides, rounds)
    rate = 2 * MATRIX**3 / medians["matrix"]
    words = f"fused AdamW, {'autocast to bf16' if bf16 else 'float32'}"
    how = {"ours": words, "peer_best": words, "peer_default": "eager float32"}
    return {
        **compared(name, peer, medians, how, samples=tokens.numel()),
        "mode": "training", "precision": precision, "batch": len(tokens), "tokens": tokens.shape[1], "rounds": rounds,
        "matrix_rate": rate,
        "limit_fraction": 6 * macs / medians["ours"] / rate,
    }  # fmt: skip


def training_step(network: nn.Module, loss: Loss, batch: Tensor, *, bf16: bool, fused: bool) -> Side:
    """Forward pass and loss, backward pass, AdamW."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=fused)

    def once() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            found = loss(network, batch)
        found.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return once


def matrix_product(precision: str) -> Side:
    """The largest rate that software reaches on this machine: one large matrix product."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(2, MATRIX, MATRIX).to(dtype)
    return lambda: a @ b


def check(who: str, got: Tensor, expected: Tensor, tolerance: float) -> None:
    """Raise OrchardError unless the outputs agree: what computes something else is not timed."""
    difference = relative_difference(got.float(), expected)
    if not difference <= tolerance:
        raise OrchardError(f"{who} differs from the peer by {difference:.2g} of the logits' norm; nothing was timed")


def time_in_turn(sides: Mapping[str, Side], rounds: int) -> dict[str, float]:
    """Median seconds of each side, timed one after the other in every round."""
    for side in sides.values():
        for _ in range(WARM_UP):
            side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}
