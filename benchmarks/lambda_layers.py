"""Lambda layers beside another formulation and beside self-attention: time and memory as the map grows.

The other formulation is a stand-in, written here after the way lucidrains/lambda-networks goes about it: content and
position lambdas are applied to the queries apart, and the local context is a three-dimensional convolution over depth,
channels of a value and positions. That project itself is not run. Both sides have the same weights, and are shown to
give the same before they are timed turn by turn. Self-attention has as many channels and heads: with its table of
weights, as the equation says, and fused (scaled_dot_product_attention). Memory is the most bytes of weights, inputs
and results alive at once.

    python benchmarks/lambda_layers.py [--sides 8 16 32 64] [--rounds 7] [--out docs/lambda_layers.png]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from orchard.app.compare import peak_memory
from orchard.inference.hardware import hardware
from orchard.nn.attention import Attention
from orchard.nn.lambda_layer import LambdaLayer, LocalPositions

CHANNELS, HEADS, KEYS, SCOPE = 128, 4, 16, 23  # of the paper's second stage, with its local context
LARGEST = 8e9  # bytes: a table of attention weights that would need more is left out


class StandIn(nn.Module):
    """The same function as a lambda layer with local context, whose weights it takes."""

    def __init__(self, layer: LambdaLayer):
        super().__init__()
        self.shapes = layer.shapes
        sizes = [count * size for count, size in layer.shapes]
        self.to_q, self.to_k, self.to_v = (nn.Conv2d(CHANNELS, size, 1, bias=False) for size in sizes)
        for conv, weight in zip(
            (self.to_q, self.to_k, self.to_v), torch.split(layer.to_qkv.weight, sizes), strict=True
        ):
            conv.weight.data.copy_(weight)
        self.norm_q, self.norm_v = nn.BatchNorm2d(sizes[0]), nn.BatchNorm2d(sizes[2])
        local: Any = layer.positions
        depth = layer.shapes[1][0]
        self.pos_conv = nn.Conv3d(depth, KEYS, (1, SCOPE, SCOPE), padding=(0, SCOPE // 2, SCOPE // 2))
        self.pos_conv.weight.data.copy_(local.conv.weight[:, :, None])
        self.pos_conv.bias.data.copy_(local.conv.bias)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        of_queries, of_keys, of_values = self.shapes
        q = self.norm_q(self.to_q(x)).reshape(batch, *of_queries, -1)
        k = self.to_k(x).reshape(batch, *of_keys, -1).softmax(-1)
        v = self.norm_v(self.to_v(x)).reshape(batch, *of_values, -1)
        content = torch.einsum("bhkn,bkv->bhvn", q, torch.einsum("bukm,buvm->bkv", k, v))
        lambdas = self.pos_conv(v.unflatten(-1, (height, width))).flatten(3)
        return (content + torch.einsum("bhkn,bkvn->bhvn", q, lambdas)).reshape(batch, -1, height, width)


class PlainAttention(nn.Module):
    """Self-attention over the positions of a map, with its table of weights (N, N) for each head."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention(CHANNELS, HEADS, bias=False, causal=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attention.project_qkv(x.flatten(2).transpose(1, 2))
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        return self.attention.out((weights @ v).transpose(1, 2).flatten(2)).transpose(1, 2).reshape(x.shape)


class FusedAttention(PlainAttention):
    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


class Learning(nn.Module):
    """Forward and backward pass of a layer."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> None:
        with torch.enable_grad():
            self.layer(x).square().mean().backward()
        self.layer.zero_grad(set_to_none=True)


def lambda_layer(depth: int) -> LambdaLayer:
    positions = LocalPositions(SCOPE, keys=KEYS, depth=depth, bias=True)
    layer = LambdaLayer(CHANNELS, CHANNELS, positions, keys=KEYS, heads=HEADS, depth=depth)
    layer.initialise()
    positions.initialise()
    return layer


def contestants() -> dict[str, nn.Module]:
    """All sides by their names; raises AssertionError where a stand-in computes something else."""
    found: dict[str, nn.Module] = {}
    for depth in (1, 4):
        layer = lambda_layer(depth)
        twin = StandIn(layer)
        x = torch.randn(2, CHANNELS, 9, 7)
        torch.testing.assert_close(layer(x), twin(x), atol=1e-4, rtol=1e-4)
        found |= {f"lambda layer, u = {depth}": layer, f"stand-in, u = {depth}": twin}
    return found | {"self-attention, with its table": PlainAttention(), "self-attention, fused": FusedAttention()}


def table_bytes(side: int, batch: int) -> float:
    """Of the attention weights, before and after the softmax, and of their gradients."""
    return 4.0 * 4 * batch * HEADS * side**4


def timed(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, turn by turn."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if number:  # one round to warm up
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}


def measure(sides: Sequence[int], batch: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each side of the map and each contestant: milliseconds and megabytes, forward and with backward."""
    rows, everyone = [], contestants()
    for side in sides:
        there = {
            name: layer
            for name, layer in everyone.items()
            if not (type(layer) is PlainAttention and table_bytes(side, batch) > LARGEST)
        }
        x = torch.randn(batch, CHANNELS, side, side)
        forward: dict[str, Callable[[], object]] = {name: partial(layer, x) for name, layer in there.items()}
        learning = {name: Learning(layer) for name, layer in there.items()}
        steps: dict[str, Callable[[], object]] = {name: partial(one, x) for name, one in learning.items()}
        with torch.no_grad():
            once, both = timed(forward, rounds), timed(steps, rounds)
        for name, layer in there.items():
            memory = peak_memory(layer, {"x": x}), peak_memory(learning[name], {"x": x})
            ms = 1e3 * once[name], 1e3 * both[name]
            rows.append({"side": side, "name": name, "ms": ms, "mb": tuple(size / 1e6 for size in memory)})
            print(
                f"| {side} x {side} | {name} | {ms[0]:.1f} | {ms[1]:.1f} | {memory[0] / 1e6:.1f} | "
                f"{memory[1] / 1e6:.1f} |", flush=True,
            )  # fmt: skip
    return rows


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Time and memory of a forward and a backward pass over the side of the map."""
    figure, both = plt.subplots(1, 2, figsize=(9.6, 3.8), layout="constrained")
    for axes, key, label in zip(both, ("ms", "mb"), ("milliseconds", "megabytes at once"), strict=True):
        for name in dict.fromkeys(row["name"] for row in rows):
            mine = [row for row in rows if row["name"] == name]
            style = "--" if name.startswith("stand-in") else "-"
            axes.plot([row["side"] for row in mine], [row[key][1] for row in mine], style, marker="o", label=name)
        axes.set(xlabel="side of the map", ylabel=f"{label}, forward and backward", xscale="log", yscale="log")
        ticks = sorted({row["side"] for row in rows})
        axes.set_xticks(ticks, [str(side) for side in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    both[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sides", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("docs/lambda_layers.png"))
    options = parser.parse_args()
    torch.manual_seed(0)
    print("| map | layer | forward, ms | with backward, ms | forward, MB | with backward, MB |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    draw(measure(options.sides, options.batch, options.rounds), options.out)
    print(f"batch {options.batch}, {CHANNELS} channels, {HEADS} heads, k = {KEYS}, context {SCOPE} x {SCOPE}")
    print(hardware())


if __name__ == "__main__":
    main()
