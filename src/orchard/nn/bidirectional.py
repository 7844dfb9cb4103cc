"""Bidirectional LSTM over padded sequences, without lengths that must be known outside the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BidirectionalLSTM(nn.Module):
    """Layers of an LSTM to the right and one to the left: (B, T, D) → (B, T, 2n), right half first.

    What is read is what torch's bidirectional LSTM reads of packed sequences: the one to the left begins at the last
    token, not in the padding. `mask` (B, T) is true at tokens, which stand before the padding. `dropout` is that of
    what every layer but the first reads. Under autocast it stays in float32: oneDNN has no bf16 LSTM on older CPUs.
    """

    def __init__(self, inputs: int, width: int, layers: int = 1, dropout: float = 0.0):
        super().__init__()
        sizes = [inputs, *[2 * width] * (layers - 1)]
        self.right = nn.ModuleList(nn.LSTM(size, width, batch_first=True) for size in sizes)
        self.left = nn.ModuleList(nn.LSTM(size, width, batch_first=True) for size in sizes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.layers(x, mask)[-1]

    def layers(self, x: Tensor, mask: Tensor) -> list[Tensor]:
        """What every layer gives, (B, T, 2n) each."""
        length = mask.sum(1, keepdim=True)
        at = torch.arange(x.shape[1], device=x.device)
        turned = torch.where(at < length, length - 1 - at, at)[..., None]  # (B, T, 1): tokens the other way round
        found: list[Tensor] = []
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            x = x.float()
            for right, left in zip(self.right, self.left, strict=True):
                x = self.dropout(x) if found else x
                ahead, _ = right(x)
                back, _ = left(x.gather(1, turned.expand_as(x)))
                x = torch.cat([ahead, back.gather(1, turned.expand_as(back))], dim=-1)
                found.append(x)
        return found
