"""The continuous cache: words that were read a while ago come again (Grave, Joulin and Usunier 2017, arXiv:1612.04426).

It learns nothing. Beside a trained model it keeps the last hidden states and the words that followed them.
"""

from __future__ import annotations

import torch
from torch import Tensor


class PointerCache:
    """Probabilities of one text, mixed with those of the words in its last `window` positions.

    A word in the window counts by how alike the state before it is to the present one: softmax(theta * h·h'). With
    `weight` λ, p = λ p_cache + (1 - λ) p_model, once the window is full.
    """

    def __init__(self, window: int, theta: float, weight: float):
        self.window, self.theta, self.weight = window, theta, weight
        self.states: Tensor | None = None  # (W, n)
        self.words: Tensor | None = None  # (W,), what followed each

    @torch.no_grad()
    def __call__(self, probabilities: Tensor, states: Tensor, targets: Tensor) -> Tensor:
        """The next T positions: the model's probabilities (T, V), its last layer's outputs (T, n) before each target
        (T,) → the mixed probabilities (T, V). A target is used after its own position alone."""
        before = 0 if self.states is None else len(self.states)
        states = states if self.states is None else torch.cat([self.states, states])
        words = targets if self.words is None else torch.cat([self.words, targets])
        mixed = probabilities.clone()
        for n in range(len(targets)):
            end = before + n
            if end <= self.window:
                continue
            seen = slice(end - self.window, end)
            alike = (self.theta * states[seen] @ states[end]).softmax(0)
            cache = torch.zeros_like(mixed[n]).index_add_(0, words[seen], alike)
            mixed[n] = self.weight * cache + (1 - self.weight) * probabilities[n]
        self.states, self.words = states[-self.window :], words[-self.window :]
        return mixed
