"""Several trained models that answer together: the mean of their probabilities, or of their numbers.

Lakshminarayanan, Pritzel and Blundell 2017 (arXiv:1612.01474), section 2.4. Each model keeps its own preprocessing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orchard.errors import UsageError
from orchard.inference.loading import Loaded
from orchard.inference.outputs import Outputs, mean_outputs
from orchard.tasks.image_classification.image_objective import OwnMetric, Predictions
from orchard.tasks.image_classification.targets import OBJECTIVES, model_objective, target_of


@dataclass(frozen=True)
class Ensemble:
    """What the mean of several models' answers says, and where each model has the names of the first."""

    target: str
    members: tuple[Outputs, ...]
    outputs: Outputs
    orders: tuple[list[int], ...]

    @classmethod
    def of(cls, loaded: Sequence[Loaded]) -> Ensemble:
        """Raises UsageError for a model that has learned something else than the first."""
        first = loaded[0]
        for one in loaded[1:]:
            if target_of(one) != target_of(first):
                raise UsageError(
                    f"{one.folder} has learned data.target={target_of(one)}, {first.folder} {target_of(first)}; only "
                    "models of the same target answer together"
                )
            lacking = [name for name in first.classes if name not in one.classes]
            more = [name for name in one.classes if name not in first.classes]
            if lacking or more:
                what = f"does not know '{lacking[0]}', as" if lacking else f"knows '{more[0]}', other than"
                raise UsageError(
                    f"{one.folder} {what} {first.folder} does; only models of the same classes answer together"
                )
        members = tuple(one.outputs for one in loaded)
        orders = tuple([m.names.index(name) for name in first.classes] for m in members)
        return cls(target_of(first), members, mean_outputs(members), orders)

    def mean(self, rows: Sequence[Sequence[float]]) -> list[float]:
        """The answer for one image, from each model's row of answers."""
        pairs = zip(rows, self.orders, strict=True)
        found: list[float] = np.mean([np.asarray(row)[order] for row, order in pairs], 0).tolist()
        return found

    def predictions(self, found: Sequence[Predictions]) -> Predictions:
        """Outputs that say the mean answers, for the metrics; labels are the first model's."""
        triples = zip(found, self.members, self.orders, strict=True)
        answers: list[Tensor] = [member.tensor(one.logits.double())[:, order] for one, member, order in triples]
        outputs = self.outputs.inverse(torch.stack(answers).mean(0)).float()
        return Predictions(outputs, found[0].labels, found[0].indices)


def ensemble_metrics(
    loaded: Sequence[Loaded], found: Sequence[Predictions], metrics: Mapping[str, OwnMetric] | None
) -> dict[str, Any]:
    """The metrics of the models together, and under "members" those of each, from their predictions for one split."""
    ensemble = Ensemble.of(loaded)
    together = OBJECTIVES[ensemble.target].for_model(ensemble.outputs, own_metrics=metrics)
    each = [model_objective(m, own_metrics=metrics).final_metrics(p) for m, p in zip(loaded, found, strict=True)]
    return {**together.final_metrics(ensemble.predictions(found)), "members": each}
