"""The angle between two sentences' vectors says how similar they are (Reimers and Gurevych 2019, arXiv:1908.10084)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.batches import Padded
from orchard.tasks.sentence_similarity.loader import SentencePairs
from orchard.tasks.text_features import Pooling, pooled
from orchard.training.phases import one_phase


@dataclass(frozen=True)
class Scale:
    """The scores of the training pairs go from `low` (another meaning, cosine 0) to `high` (the same, cosine 1)."""

    low: float
    high: float

    def cosine(self, scores: Tensor) -> Tensor:
        return (scores - self.low) / (self.high - self.low)


class SentenceSimilarity:
    """The squared error between the cosine and the score, brought to 0 .. 1 (the paper's regression objective)."""

    logged = ("spearman",)

    def __init__(self, scale: Scale, pooling: Pooling):
        self.scale, self.pooling = scale, pooling
        self.phases = one_phase(self.loss)

    def loss(self, model: nn.Module, batch: SentencePairs) -> tuple[Tensor, dict[str, Tensor]]:
        cosines = self.cosines(model, batch)
        return F.mse_loss(cosines, self.scale.cosine(batch.scores)), {}

    def cosines(self, model: nn.Module, batch: SentencePairs) -> Tensor:
        """(B,) float32."""
        first, second = (self._vectors(model, side) for side in (batch.first, batch.second))
        return F.cosine_similarity(first.float(), second.float())

    def _vectors(self, model: nn.Module, side: Padded) -> Tensor:
        return pooled(model, self.pooling, side.values, side.mask, torch.zeros_like(side.values))

    @torch.no_grad()
    def measure(self, model: nn.Module, batches: Iterable[SentencePairs]) -> list[tuple[Tensor, Tensor]]:
        """Cosines and scores of every batch."""
        return [(self.cosines(model, batch).cpu(), batch.scores.cpu()) for batch in batches]

    def metrics(self, found: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Correlation of ranks and of values between cosines and scores, and the loss."""
        from scipy.stats import pearsonr, spearmanr

        cosines, scores = (torch.cat(column) for column in zip(*found, strict=True))
        loss = float(F.mse_loss(cosines, self.scale.cosine(scores)))
        flat = bool(np.ptp(cosines.numpy()) == 0)  # nothing is told apart
        spearman, pearson = (
            0.0 if flat else float(measure(cosines.numpy(), scores.numpy())[0]) for measure in (spearmanr, pearsonr)
        )
        return {"loss": loss, "spearman": spearman, "pearson": pearson}
