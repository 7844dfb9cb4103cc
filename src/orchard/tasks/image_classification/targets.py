"""The objective that goes with what is learned of an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchard.data.contracts import ImageData
from orchard.errors import UsageError
from orchard.inference.loading import Loaded
from orchard.tasks.image_classification.image_objective import ImageObjective
from orchard.tasks.image_classification.multi_label import MultiLabel
from orchard.tasks.image_classification.objective import ImageClassification
from orchard.tasks.image_classification.regression import Regression
from orchard.tasks.image_classification.settings import Settings
from orchard.training.settings import Resolved, flatten

OBJECTIVES: Mapping[str, type[ImageObjective]] = {
    "class": ImageClassification, "classes": MultiLabel, "number": Regression,
}  # fmt: skip


def settle_for_target(resolved: Resolved, data: ImageData) -> Resolved:
    """The settings without what a recipe has for classes, where numbers are learned; what a person asks for is refused.

    Raises UsageError for a setting that has no meaning for the data.
    """
    values = flatten(resolved.settings.model_dump())
    for key in OBJECTIVES[data.target].without:
        if values[key] and resolved.origins.get(key) == "command":
            raise UsageError(f"{key} is for classes, and {data.source} has numbers; leave it out")
        if values[key]:
            resolved = resolved.choose(key, 0.0, "chosen: it is for classes, and here are numbers")
    return resolved


def training_objective(data: ImageData, settings: Settings, **common: Any) -> ImageObjective:
    """That of a training."""
    return OBJECTIVES[data.target].for_training(data, settings, **common)


def model_objective(loaded: Loaded, **common: Any) -> ImageObjective:
    """That of a trained model; OrchardError for facts in its folder that are not of their form."""
    return OBJECTIVES[target_of(loaded)].for_model(loaded.outputs, **common)


def target_of(loaded: Loaded) -> str:
    """What a model has learned of images."""
    return str(loaded.facts.get("target", "class"))
