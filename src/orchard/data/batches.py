"""Batches: named tensors about the same B samples, which move, split and count alike for every task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Padded:
    """Samples of unlike sizes in one tensor: values (B, N, ...), and mask (B, N), true where a value is real.

    Images of unlike sizes are (B, C, H, W) with a mask (B, H, W).
    """

    values: Tensor
    mask: Tensor

    @classmethod
    def of(cls, rows: Sequence[Tensor], value: float = 0) -> Padded:
        """Rows (N_i, ...) padded with `value` to the longest of them."""
        lengths = torch.tensor([len(row) for row in rows])
        values = pad_sequence(list(rows), batch_first=True, padding_value=value)
        return cls(values, torch.arange(values.shape[1]) < lengths[:, None])

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Ragged:
    """As many values as each sample has: values (N, ...) of all samples in order, lengths (B,) int64 on the CPU."""

    values: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, rows: Sequence[Tensor]) -> Ragged:
        """Rows (N_i, ...) one after the other."""
        return cls(torch.cat(list(rows)), torch.tensor([len(row) for row in rows]))

    def rows(self) -> tuple[Tensor, ...]:
        """Each sample's values (N_i, ...)."""
        return torch.split(self.values, self.lengths.tolist())

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True)
class Batch:
    """What a task learns from: a dataclass of tensors, `Padded` and `Ragged`, each with the B samples in front.

    Every batch has `indices` (B,) int64, the index of each sample in its split; they stay on the CPU.
    """

    def to(self, device: torch.device | str, *, channels_last: bool = False) -> Self:
        """The batch on a device; images (four axes, floating point) with their channels innermost where asked."""

        def move(name: str, tensor: Tensor) -> Tensor:
            if name in ("indices", "lengths"):
                return tensor
            tensor = tensor.to(device, non_blocking=True)
            packed = channels_last and tensor.ndim == 4 and tensor.is_floating_point()
            return tensor.contiguous(memory_format=torch.channels_last) if packed else tensor

        return type(self)(**{field.name: _each(field.name, getattr(self, field.name), move) for field in fields(self)})

    def parts(self, count: int) -> list[Self]:
        """The batch in up to `count` equal pieces, for gradients that are accumulated piece by piece."""
        columns = [_chunks(getattr(self, field.name), count) for field in fields(self)]
        return [type(self)(*pieces) for pieces in zip(*columns, strict=True)]

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))


def _each(name: str, value: Any, change: Callable[[str, Tensor], Tensor]) -> Any:
    """Every tensor in a field changed, by its own name or that of the field."""
    if isinstance(value, Tensor):
        return change(name, value)
    return type(value)(**{f.name: change(f.name, getattr(value, f.name)) for f in fields(value)})


def _chunks(value: Any, count: int) -> list[Any]:
    if isinstance(value, Tensor):
        return list(value.chunk(count))
    if isinstance(value, Padded):
        return [Padded(*pair) for pair in zip(value.values.chunk(count), value.mask.chunk(count), strict=True)]
    lengths = value.lengths.chunk(count)
    return [
        Ragged(*pair) for pair in zip(torch.split(value.values, [int(n.sum()) for n in lengths]), lengths, strict=True)
    ]


@dataclass(frozen=True)
class ImageBatch(Batch):
    """Images with labels.

    images: (B, C, H, W) float, as the model's preprocessing left them;
    labels: (B,) int64, or (B, K) float of several classes, of numbers, or where images were mixed;
    indices: (B,) int64.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor


@dataclass(frozen=True)
class TokenBatch(Batch):
    """Windows of a text.

    tokens: (B, T + 1) int64; a model reads the first T and predicts the last T;
    weights: (B, T) float32, the weight of each prediction: 1, or 0 where nothing is asked (padding);
    indices: (B,) int64, the index of each row's first token in its split.
    """

    tokens: Tensor
    weights: Tensor
    indices: Tensor

    @property
    def inputs(self) -> Tensor:
        return self.tokens[:, :-1]

    @property
    def targets(self) -> Tensor:
        return self.tokens[:, 1:]
