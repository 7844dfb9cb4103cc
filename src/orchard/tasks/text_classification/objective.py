"""The loss and the metrics of a classifier of texts: those of images' labels, with texts for images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from orchard.data.labelled_text.contracts import LabelledTextData
from orchard.data.text_inputs import TextBatch
from orchard.inference.loading import Loaded
from orchard.tasks.image_classification.image_objective import ImageObjective, Predictions
from orchard.tasks.image_classification.targets import OBJECTIVES, target_of
from orchard.tasks.text_classification.settings import Settings
from orchard.training.phases import one_phase


class TextClassification:
    """What a model that gives outputs (B, K) of texts learns from; `labels` knows their loss and metrics."""

    def __init__(self, labels: ImageObjective):
        self.labels = labels
        self.logged = labels.validated
        self.phases = (replace(one_phase(self.loss, through_forward=True)[0], after=project),)

    @classmethod
    def for_training(cls, data: LabelledTextData, settings: Settings) -> TextClassification:
        return cls(OBJECTIVES[data.target].for_training(data, settings))

    @classmethod
    def for_model(cls, loaded: Loaded) -> TextClassification:
        return cls(OBJECTIVES[target_of(loaded)].for_model(loaded.outputs))

    def loss(self, model: nn.Module, batch: TextBatch) -> tuple[Tensor, dict[str, Tensor]]:
        outputs = model(batch.tokens.values, batch.tokens.mask, batch.segments)
        return self.labels.criterion(outputs, batch.labels), self.labels.batch_metrics(outputs.detach(), batch.labels)

    def final_metrics(self, predictions: Predictions) -> dict[str, float]:
        """Of numbers with their correlation by value and by rank, as pairs of sentences are judged by."""
        found = self.labels.final_metrics(predictions)
        if not hasattr(self.labels, "values"):
            return found
        from scipy.stats import pearsonr, spearmanr

        pairs = zip(self.labels.values(predictions).T.numpy(), predictions.labels.T.numpy(), strict=True)
        rows = [(float(pearsonr(said, true)[0]), float(spearmanr(said, true)[0])) for said, true in pairs]
        mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        return {**found, "pearson": mean[0], "spearman": mean[1]}


def project(model: nn.Module) -> None:
    """Weights go back to where they may be after each update, of a model that says so (`project`)."""
    back: Any = getattr(model, "project", None)
    if back is not None:
        back()


@torch.no_grad()
def predict_texts(model: nn.Module, batches: Iterable[TextBatch]) -> Predictions:
    """Run `model`, as it stands, over batches that are already on its device."""
    found = [
        Predictions(
            model(batch.tokens.values, batch.tokens.mask, batch.segments).float().cpu(),
            batch.labels.cpu(),
            batch.indices,
        )
        for batch in batches
    ]
    return Predictions.merge(found)
