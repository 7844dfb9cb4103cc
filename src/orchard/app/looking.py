"""`data check`: settings of data that no training has asked for yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from orchard.cards import FOREIGN, Recipe, find_recipe
from orchard.data.kinds import canonical_name
from orchard.data.settings import AnySource, AugmentSettings, MixSettings, PreprocessSettings
from orchard.tasks.registry import task_of
from orchard.training.settings import Resolved, TrainSettings, resolve


class LookSettings(TrainSettings):
    """What there is to say about any data, whichever task learns from it."""

    data: AnySource
    preprocessing: PreprocessSettings = Field(default_factory=PreprocessSettings)
    augmentation: MixSettings = Field(default_factory=MixSettings)


def _varies_images(model: str) -> bool:
    task = task_of(model)
    field = task.load(task.settings).model_fields.get("augmentation")
    return field is not None and issubclass(field.annotation, AugmentSettings)


def look_settings(source: str, model: str | None, command: Mapping[str, Any]) -> Resolved:
    """`LookSettings`: what was asked for, on top of what the model's recipe says of data and augmentation.

    The augmentation of a task that does not vary images alone (a detector's) is not looked at.
    """
    recipe = find_recipe(model, canonical_name(source)) if model and not model.startswith(FOREIGN) else None
    groups = ("data.", "augmentation.", "preprocessing.") if model and _varies_images(model) else ("data.",)
    learned = {key: value for key, value in recipe.settings.items() if key.startswith(groups)} if recipe else {}
    asked = {**command, "model": model or "none", "data.source": source}
    return resolve(asked, Recipe(model or "none", "", learned), "recipe", LookSettings)
