"""Layers as improved_wgan_training's tflib names and lays them out, for name tables."""

from __future__ import annotations

from torch import Tensor

from orchard.models import Rule

Rows = list[Rule | tuple[str, str]]


def conv(ours: str, theirs: str) -> Rows:
    """A convolution or a transposed one: kernels have their channels last."""

    def join(kernel: Tensor) -> Tensor:
        return kernel.permute(3, 2, 0, 1)

    def split(kernel: Tensor) -> tuple[Tensor]:
        return (kernel.permute(2, 3, 1, 0),)

    return [Rule(f"{ours}.weight", (f"{theirs}.Filters",), join, split), (f"{ours}.bias", f"{theirs}.Biases")]


def linear(ours: str, theirs: str) -> Rows:
    """A matrix is transposed."""
    return [
        Rule(f"{ours}.weight", (f"{theirs}.W",), lambda matrix: matrix.T, lambda matrix: (matrix.T,)),
        (f"{ours}.bias", f"{theirs}.b"),
    ]


def norm(ours: str, theirs: str) -> Rows:
    """A batch or layer norm. The running averages are variables that the authors' code never changes."""
    return [
        (f"{ours}.weight", f"{theirs}.scale"),
        (f"{ours}.bias", f"{theirs}.offset"),
        (f"{ours}.running_mean", f"{theirs}.moving_mean"),
        (f"{ours}.running_var", f"{theirs}.moving_variance"),
        (f"{ours}.num_batches_tracked", f"{theirs}.steps"),
    ]


def unit_norm(ours: str, theirs: str) -> Rows:
    """A batch norm of single units, whose numbers are rows."""

    def join(row: Tensor) -> Tensor:
        return row.flatten()

    def split(numbers: Tensor) -> tuple[Tensor]:
        return (numbers[None],)

    names = {"weight": "scale", "bias": "offset"}
    rows: Rows = [Rule(f"{ours}.{n}", (f"{theirs}.{name}",), join, split) for n, name in names.items()]
    return [*rows, *norm(ours, theirs)[2:]]
