"""The objective that goes with what is learned of an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchard.data.contracts import LabelledData
from orchard.errors import UsageError
from orchard.inference.loading import Loaded
from orchard.tasks.image_classification.image_objective import ImageObjective
from orchard.tasks.image_classification.multi_label import MultiLabel
from orchard.tasks.image_classification.objective import ImageClassification
from orchard.tasks.image_classification.regression import Regression
from orchard.tasks.image_classification.settings import LabelSettings
from orchard.training.settings import Resolved, flatten

OBJECTIVES: Mapping[str, type[ImageObjective]] = {
    "class": ImageClassification, "classes": MultiLabel, "number": Regression,
}  # fmt: skip


def settle_for_target(resolved: Resolved, data: LabelledData) -> Resolved:
    """The settings without what a recipe has for classes, where numbers are learned; what a person asks for is refused.

    Raises UsageError for a setting that has no meaning for the data.
    """
    words = {"class": "one class", "classes": "several classes", "number": "numbers"}[data.target]
    values = flatten(resolved.settings.model_dump())
    for key in OBJECTIVES[data.target].without:
        given = [name for name, value in values.items() if (name == key or name.startswith(f"{key}.")) and value]
        if given and any(resolved.origins.get(name) == "command" for name in given):
            raise UsageError(f"{key} has no meaning where a record has {words}, as in {data.source}; leave it out")
        if given:
            resolved = resolved.choose(key, 0.0, f"chosen: it has no meaning where a record has {words}")
    return resolved


def training_objective(data: LabelledData, settings: LabelSettings, **common: Any) -> ImageObjective:
    """That of a training."""
    return OBJECTIVES[data.target].for_training(data, settings, **common)


def model_objective(loaded: Loaded, **common: Any) -> ImageObjective:
    """That of a trained model; OrchardError for facts in its folder that are not of their form."""
    return OBJECTIVES[target_of(loaded)].for_model(loaded.outputs, **common)


def target_of(loaded: Loaded) -> str:
    """What a model has learned of images."""
    return str(loaded.facts.get("target", "class"))
