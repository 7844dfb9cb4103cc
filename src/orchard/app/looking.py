"""`data check`: settings of data that no training has asked for yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchard.cards import find_recipe
from orchard.data.kinds import canonical_name
from orchard.data.settings import AnySource, AugmentSettings, MixSettings
from orchard.training.settings import TrainSettings, known_keys, resolve


class LookSettings(TrainSettings):
    """What there is to say about any data, whichever task learns from it."""

    data: AnySource
    augmentation: MixSettings = MixSettings()


def data_settings(source: str, model: str | None, command: Mapping[str, Any]) -> tuple[AnySource, AugmentSettings]:
    """Settings of data and of augmentation: what was asked for, on top of those of the model's recipe.

    What only the model's own task augments by is not looked at.
    """
    recipe = find_recipe(model, canonical_name(source)) if model else None
    looked_at = {key for key in known_keys(LookSettings) if key.startswith(("data.", "augmentation."))}
    learned = {key: value for key, value in recipe.settings.items() if key in looked_at} if recipe else {}
    settings = resolve(
        {**learned, **command, "model": model or "none", "data.source": source}, None, "", LookSettings
    ).settings
    assert isinstance(settings, LookSettings)
    return settings.data, settings.augmentation
