"""The objective that goes with what is learned of an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchard.data.contracts import ImageData
from orchard.inference.loading import Loaded
from orchard.tasks.image_classification.image_objective import ImageObjective
from orchard.tasks.image_classification.multi_label import MultiLabel
from orchard.tasks.image_classification.objective import ImageClassification
from orchard.tasks.image_classification.regression import Regression
from orchard.tasks.image_classification.settings import Settings

OBJECTIVES: Mapping[str, type[ImageObjective]] = {
    "class": ImageClassification, "classes": MultiLabel, "number": Regression,
}  # fmt: skip


def training_objective(data: ImageData, settings: Settings, **common: Any) -> ImageObjective:
    """That of a training; UsageError for settings that have no meaning for its data."""
    return OBJECTIVES[data.target].for_training(data, settings, **common)


def model_objective(loaded: Loaded, **common: Any) -> ImageObjective:
    """That of a trained model; OrchardError for facts in its folder that are not of their form."""
    return OBJECTIVES[target_of(loaded)].for_model(loaded.outputs, **common)


def target_of(loaded: Loaded) -> str:
    """What a model has learned of images."""
    return str(loaded.facts.get("target", "class"))
