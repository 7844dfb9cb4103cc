"""What the tasks share that learn from images alone: the model to start from, and how images come to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

from torch import nn

from orchard.data.characters import mirrored_characters, named
from orchard.data.contracts import ImageData, ImageSplit, Preprocess
from orchard.data.preprocess import with_settings
from orchard.data.settings import Resize
from orchard.models import picture_size
from orchard.tasks import base
from orchard.training.settings import Resolved


class ImageSettings(Protocol):
    """What is asked of the settings of such a task."""

    model: str
    architecture: dict[str, Any]
    start_from: str | None
    image_size: int | None


def start_model(settings: ImageSettings, data: ImageData) -> nn.Module:
    """The model to train: fresh, for the channels of the data, or with the weights of another run or model."""
    wanted = dict(settings.architecture)
    if settings.image_size:
        wanted["image_size"] = settings.image_size
    return base.start_network(settings, wanted, {"in_channels": data.channels})


def settle_preprocessing(resolved: Resolved, found: Preprocess, start_from: str | None) -> tuple[Resolved, Preprocess]:
    """The settings with what `preprocessing.*` leaves open, which is `found` in the data or with the weights; and what
    comes of both.

    Raises UsageError for a mean or std of another number of channels.
    """
    settings: Any = resolved.settings
    preprocess = with_settings(found, settings.preprocessing)
    why = "chosen: as the weights it starts from were trained" if start_from else "chosen: fits the data"
    for key, value in settings.preprocessing:
        if value is None:
            resolved = resolved.choose(f"preprocessing.{key}", getattr(preprocess, key), why)
    return resolved, preprocess


def keep_characters(resolved: Resolved, classes: Sequence[str]) -> Resolved:
    """Without the mirroring that a recipe has for images of any kind, where the classes are characters; what a person
    asks for stays."""
    settings: Any = resolved.settings
    if resolved.origins.get("augmentation.flip") == "command" or not mirrored_characters(
        settings.augmentation, classes
    ):
        return resolved
    why = f"chosen: the classes are characters ({named(classes)}), and a mirrored one is another or none"
    return resolved.choose("augmentation.flip", False, why)


def value_range_preprocess(model: nn.Module, data: ImageData) -> Preprocess:
    """Pixels from the lowest to the highest value of the model's `value_range`.

    Small images are resized as they are; of others the middle is kept up to the shorter sides, since a border that is
    cut away could never be drawn.
    """
    config: Any = model.config
    found = Preprocess(picture_size(config), config.in_channels, (), (), resize=whole_if_small(data.splits["train"]))
    return in_value_range(found, model)


def in_value_range(preprocess: Preprocess, model: nn.Module) -> Preprocess:
    """The same with pixels from the lowest to the highest value of the model's `value_range`."""
    low, high = cast(tuple[float, float], model.value_range)
    mean, std = (-low / (high - low),) * preprocess.channels, (1 / (high - low),) * preprocess.channels
    return replace(preprocess, mean=mean, std=std)


def whole_if_small(split: ImageSplit) -> Resize:
    """How images of a split are resized for a model that makes some: small ones as a whole."""
    return "stretch" if split.small else "shorter-side"
