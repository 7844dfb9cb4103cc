"""From the logits of what may come next to what does.

Chance is an argument: a number in [0, 1) for each row and place, made by `data.chance` from a seed, so that what is
written depends on the seed and on nothing that is written beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from orchard.errors import UsageError

COLDEST, HOTTEST = 1e-4, 1e6  # what logits are divided by: beyond, float32 has no room for the quotients


@dataclass(frozen=True)
class Sampling:
    """How to choose. `temperature` 0 is greedy; the others narrow the choice before chance has its say."""

    temperature: float = 1.0
    top_k: int | None = None  # so many of the most likely tokens, and all that are as likely as the last of them
    top_p: float | None = None  # the fewest, most likely first, that together reach this probability (arXiv:1904.09751)
    repetition_penalty: float = 1.0  # divides what speaks for a token that was there before (arXiv:1909.05858)

    def __post_init__(self) -> None:
        faults = {
            f"temperature {self.temperature}: expected 0, or {COLDEST:g} to {HOTTEST:g}": not (
                self.temperature == 0 or COLDEST <= self.temperature <= HOTTEST
            ),
            f"top_k {self.top_k}: expected 1 or more": self.top_k is not None and self.top_k < 1,
            f"top_p {self.top_p}: expected more than 0, at most 1": self.top_p is not None and not 0 < self.top_p <= 1,
            f"repetition_penalty {self.repetition_penalty}: expected {COLDEST:g} to {HOTTEST:g}": not (
                COLDEST <= self.repetition_penalty <= HOTTEST
            ),
        }
        for fault, found in faults.items():
            if found:
                raise UsageError(fault)


def choose(logits: Tensor, chance: Tensor, sampling: Sampling, before: Sequence[Sequence[int]] | None = None) -> Tensor:
    """One token for each row, (R,) int64, of `logits` (R, V) float32 by `chance` (R,) float64 in [0, 1).

    `before` holds the tokens that each row has so far; only a repetition penalty asks for them.
    """
    if sampling.repetition_penalty != 1.0 and before is not None:
        logits = penalise(logits, before, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    scores = narrow(logits / sampling.temperature, sampling)
    # The inverse of the cumulative distribution: in float64, so that rounding does not decide between tokens.
    sums = scores.double().softmax(-1).cumsum(-1)
    wanted = chance.to(sums.device)[:, None] * sums[:, -1:]
    return torch.searchsorted(sums, wanted, right=True).clamp(max=logits.shape[-1] - 1)[:, 0]


def narrow(scores: Tensor, sampling: Sampling) -> Tensor:
    """Scores (R, V) with minus infinity for what top-k and top-p leave out."""
    never = float("-inf")
    if sampling.top_k is not None and sampling.top_k < scores.shape[-1]:
        least = scores.topk(sampling.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < least, never)
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, places = scores.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)  # what likelier ones have together
        scores = scores.masked_fill((before >= sampling.top_p).gather(-1, places.argsort(-1)), never)
    return scores


def penalise(logits: Tensor, before: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Logits with those of the tokens in `before` divided by the penalty, or multiplied where they are negative."""
    logits = logits.clone()
    for row, tokens in enumerate(before):
        seen = torch.tensor(sorted(set(tokens)), dtype=torch.int64, device=logits.device)
        found = logits[row, seen]
        logits[row, seen] = torch.where(found > 0, found / penalty, found * penalty)
    return logits


class Wishes(Protocol):
    """What somebody may ask for; None leaves a choice as it is, a `top_k` of 0 disables it."""

    temperature: float | None
    top_k: int | None
    top_p: float | None


def sampling_from(usual: Sampling, wishes: Wishes) -> Sampling:
    """What is asked for over what is usual."""
    given = {key: getattr(wishes, key) for key in ("temperature", "top_k", "top_p")}
    chosen: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if chosen.get("top_k") == 0:
        chosen["top_k"] = None
    return replace(usual, **chosen)
