"""Words at several places, drawn in turn (Wang & Cho 2019, "BERT has a Mouth, and It Must Speak", arXiv:1902.04094)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orchard.data.counter_rng import uniforms
from orchard.inference.sampling import Sampling, choose

Logits = Callable[[Tensor], Tensor]  # ids (B, T) → (B, T, V)


@dataclass(frozen=True)
class Gibbs:
    """`steps` draws, each at one place chosen at random for all texts. The first `burn_in` of them are from all tokens,
    the others from the `top_k` likeliest; with a `top_k` of 0 the likeliest is taken."""

    steps: int
    burn_in: int
    top_k: int
    temperature: float

    def sampling(self, step: int) -> Sampling:
        if step < self.burn_in:
            return Sampling(temperature=self.temperature)
        return Sampling(self.temperature, top_k=self.top_k) if self.top_k else Sampling(temperature=0.0)


def conditional(logits: Logits, ids: Tensor, place: int, mask: int) -> Tensor:
    """Hide what stands at `place` of ids (B, T), in place, and give the logits (B, V) of what may stand there."""
    ids[:, place] = mask
    return logits(ids)[:, place]


def sample(logits: Logits, ids: Tensor, places: Sequence[int], mask: int, how: Gibbs, seed: int) -> Tensor:
    """Ids (B, T) with tokens drawn at `places`; texts, seed and steps say which.

    The conditionals are those of no one distribution over texts, as the authors say in a later note, so that this is a
    chain without a known target.
    """
    ids = ids.clone()
    texts = np.arange(len(ids))
    for step in range(how.steps):
        where, *_ = uniforms(seed, step, np.array([len(ids)]), 1)[0]
        place = places[int(where * len(places))]
        chances = torch.from_numpy(uniforms(seed, step, texts, 1)[:, 0])
        ids[:, place] = choose(conditional(logits, ids, place, mask), chances, how.sampling(step))
    return ids
