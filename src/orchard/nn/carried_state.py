"""What a language model keeps of a text from one segment to the next: hidden states, or a memory of former layers.

A model that carries a state has `start(batch, length)` -> `CarriedState` and `step(tokens, state)` -> logits of what
follows each of tokens (B, T); `state` takes the tokens in. Reading a text in segments of any lengths, one after the
other, gives what it says of it (of attention with a memory: as far as that reaches).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class CarriedState:
    """`tensors` have the B texts in front, and the same shapes after every step."""

    tensors: list[Tensor]

    def reorder(self, rows: Tensor) -> None:
        """Keep `rows` (N,) int64 of the B texts, in this order; a row may be taken several times."""
        self.tensors = [tensor[rows] for tensor in self.tensors]


def joined(states: Sequence[CarriedState]) -> CarriedState:
    """The texts of several states side by side."""
    return CarriedState([torch.cat(parts) for parts in zip(*(state.tensors for state in states), strict=True)])


def carries_state(model: nn.Module) -> bool:
    """Does it read a text segment by segment? Other language models see a window of it."""
    return hasattr(model, "start")


def check_tokens(tokens: Tensor, vocabulary: int) -> None:
    """Raise ValueError unless `tokens` are ids (B, T) int64 of the vocabulary; on the CPU alone numbers are looked at,
    as elsewhere every call would wait for the device."""
    if tokens.ndim != 2 or tokens.dtype != torch.int64 or tokens.shape[1] < 1:
        raise ValueError(f"expected token ids (B, T) int64, T 1 or more, got {tuple(tokens.shape)} {tokens.dtype}")
    if tokens.device.type == "cpu" and tokens.numel() and not torch.compiler.is_compiling():
        low, high = tokens.aminmax()
        if low < 0 or high >= vocabulary:
            raise ValueError(f"expected token ids from 0 to {vocabulary - 1}, got {int(low)} to {int(high)}")


def example_segment(config: Any, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Segments of the length that is learned from, ids at random."""
    return {"tokens": torch.randint(config.vocabulary, (count, config.context), generator=generator)}
