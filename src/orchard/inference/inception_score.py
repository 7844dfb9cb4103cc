"""The inception score: how sure a classifier is of single images, and how many kinds it sees in all of them."""

from __future__ import annotations

import torch
from torch import Tensor


class InceptionScore:
    """exp of the mean KL divergence of p(class | image) from the mean p(class); from 1, where all images are alike to
    the classifier, to the number of classes.

    Salimans et al. 2016 (arXiv:1606.03498), section 4, in float64. The `total` images are cut, in their order, into
    `splits` equal parts, each scored by itself; a part's score grows with its size. Logits are added batch by batch,
    and memory does not grow with their number.
    """

    def __init__(self, total: int, splits: int):
        parts = min(splits, total)
        self.ends = torch.tensor([(part + 1) * total // parts for part in range(parts)])
        self.seen = 0
        self.probabilities = torch.zeros(parts, 0, dtype=torch.float64)  # (parts, K) sums over images
        self.information = torch.zeros(parts, dtype=torch.float64)  # (parts,) sums of p log p over images and classes

    def add(self, logits: Tensor) -> None:
        """(N, K) of the next images."""
        if not self.seen:
            self.probabilities = self.probabilities.new_zeros(len(self.ends), logits.shape[1])
        logs = logits.double().log_softmax(1)
        parts = torch.searchsorted(self.ends, torch.arange(self.seen, self.seen + len(logits)), right=True)
        self.probabilities.index_add_(0, parts, logs.exp())
        self.information.index_add_(0, parts, (logs.exp() * logs).sum(1))
        self.seen += len(logits)

    def result(self) -> tuple[float, float]:
        """Mean and (population) standard deviation over the parts; ValueError before all images are there."""
        if self.seen != self.ends[-1]:
            raise ValueError(f"expected the logits of {int(self.ends[-1])} images, got {self.seen}")
        counts = self.ends.diff(prepend=self.ends.new_zeros(1))
        means = self.probabilities / counts[:, None]
        scores = (self.information / counts - torch.xlogy(means, means).sum(1)).exp()
        return float(scores.mean()), float(scores.std(correction=0))
