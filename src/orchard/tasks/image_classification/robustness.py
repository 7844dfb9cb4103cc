"""What `evaluate` says of a classifier's robustness: its accuracy under attack, and a certificate."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from orchard.data.contracts import ImageSplit
from orchard.data.loader import Loader
from orchard.errors import UsageError
from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.image_classification.attack import Attack
from orchard.tasks.image_classification.image_objective import Predictions
from orchard.tasks.image_classification.robust import DISTANCE, SURROGATE, WorstCase
from orchard.tasks.image_classification.settings import EvaluationSettings, RobustSettings

BATCH = 64
ACCURACY, CERTIFIED = "robust_accuracy", "certified_loss"


def check_robustness(evaluation: EvaluationSettings | None, *, target: str, members: int) -> None:
    """Raise UsageError where robustness is asked of what has none to measure."""
    asked = [name for name in ("attack", "gamma") if evaluation is not None and getattr(evaluation, name) is not None]
    if not asked or evaluation is None:
        return
    if target != "class":
        raise UsageError(f"setting 'evaluation.{asked[0]}' is for images of one class each; leave it out")
    if members > 1 or evaluation.tta != "none":
        what = "several models" if members > 1 else "test-time augmentation"
        raise UsageError(f"setting 'evaluation.{asked[0]}' is for one model's own answers, not {what}; leave one out")


def robustness(
    loaded: Loaded, images: ImageSplit, found: Predictions, workers: int | None, evaluation: EvaluationSettings | None
) -> dict[str, Any]:
    """`robust_accuracy` under an attack of `evaluation.attack`, and by `evaluation.gamma` the certificate.

    That is `worst_distance` ρ, the mean squared distance that images move, `surrogate_loss`, the mean of φ, and
    `certified_loss`, φ + γ ρ: no distribution within ρ of these images has a larger mean loss, as far as the ascent
    found the worst of each.
    """
    if evaluation is None or (evaluation.attack is None and evaluation.gamma is None):
        return {}
    model, device = base.on_device(loaded.model)
    labels = torch.empty(int(found.indices.max()) + 1, dtype=torch.int64)
    labels[found.indices] = found.labels
    loader = Loader(images, loaded.pictures, None, batch_size=BATCH, seed=0, workers=workers)
    metrics: dict[str, Any] = {}
    if evaluation.attack is not None:
        attack = Attack(evaluation.attack, evaluation.attack_norm, evaluation.attack_steps, loaded.pictures)
        metrics[ACCURACY] = attack.accuracy(model, (batch.to(device) for batch in loader.batches(0)), labels)
    if evaluation.gamma is not None:
        worst_case = WorstCase(evaluation.gamma, RobustSettings().steps, loaded.pictures)
        distance = loss = 0.0
        for batch in loader.batches(0):
            wanted = labels[batch.indices].to(device)
            worst = worst_case(model, batch.to(device).images, wanted, F.cross_entropy)
            with torch.no_grad():
                loss += float(F.cross_entropy(model(worst.images).float(), wanted, reduction="sum"))
            distance += float(worst.distances.sum())
        loss, distance = loss / len(found.labels), distance / len(found.labels)
        metrics |= {DISTANCE: distance, SURROGATE: loss - evaluation.gamma * distance, CERTIFIED: loss}
    return metrics
