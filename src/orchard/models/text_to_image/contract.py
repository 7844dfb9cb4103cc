"""What every text-to-image sequence model gives a training, and how it checks what it is given."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Losses:
    """Mean negative log likelihoods in nats, scalars: `image` per code, `text` per text token where that is learned.

    `total` is what the model is trained on.
    """

    image: Tensor
    text: Tensor | None
    total: Tensor


def check_ids(ids: Tensor, what: str, kinds: int, length: int | None = None, most: int | None = None) -> None:
    """Raise ValueError unless `ids` is (B, `length`) int64, at most `most` long, of numbers from 0 to `kinds` - 1.

    Numbers are looked at on the CPU only: elsewhere that would make every call wait for the device.
    """
    wanted = f"(B, {'T' if length is None else length})"
    if ids.ndim != 2 or (length is not None and ids.shape[1] != length):
        raise ValueError(f"expected {what} of shape {wanted}, got {tuple(ids.shape)}")
    if ids.dtype != torch.int64:
        raise ValueError(f"expected {what} as int64, got {ids.dtype}")
    if most is not None and ids.shape[1] > most:
        raise ValueError(f"expected at most {most} {what}, got {ids.shape[1]}")
    if ids.device.type == "cpu" and ids.numel() and not torch.compiler.is_compiling():
        low, high = ids.aminmax()
        if low < 0 or high >= kinds:
            raise ValueError(f"expected {what} from 0 to {kinds - 1}, got {int(low)} to {int(high)}")
