"""What the name tables of convolutional networks with attention share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from orchard.models import Rule

Layout = Callable[[Tensor], Tensor]


def kernel_to_matrix(kernel: Tensor) -> Tensor:
    """A 1x1 convolution (O, I, 1, 1) as a matrix (O, I)."""
    return kernel.flatten(1)


def matrix_to_kernel(matrix: Tensor) -> Tensor:
    """The inverse of `kernel_to_matrix`."""
    return matrix[..., None, None]


def attention_rules(
    ours: str,
    qkv: Sequence[str],
    out: str,
    *,
    to_matrix: Layout = kernel_to_matrix,
    from_matrix: Layout = matrix_to_kernel,
    weight: str = ".weight",
    bias: str = ".bias",
) -> list[Rule | tuple[str, str]]:
    """Our attention `ours` from four layers of theirs: the three of `qkv`, and `out`.

    `to_matrix` and `from_matrix` change the layout of a weight; `weight` and `bias` follow a layer's name.
    """
    return [
        Rule(
            f"{ours}.qkv.weight",
            tuple(name + weight for name in qkv),
            join=lambda *pieces: torch.cat([to_matrix(piece) for piece in pieces]),
            split=lambda matrix: tuple(from_matrix(piece) for piece in matrix.chunk(3)),
        ),
        Rule(
            f"{ours}.qkv.bias",
            tuple(name + bias for name in qkv),
            join=lambda *pieces: torch.cat(pieces),
            split=lambda vector: vector.chunk(3),
        ),
        Rule(
            f"{ours}.out.weight",
            (out + weight,),
            join=to_matrix,
            split=lambda matrix: (from_matrix(matrix),),
        ),
        (f"{ours}.out.bias", out + bias),
    ]
