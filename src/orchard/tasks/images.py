"""What the tasks share that learn from images alone: the model to start from, and how images come to it."""

from __future__ import annotations

from typing import Any, Protocol, cast

from torch import nn

from orchard.data.contracts import ImageData, Preprocess
from orchard.errors import UsageError
from orchard.models import create_model, picture_size
from orchard.tasks import base
from orchard.weights.portable import WEIGHTS, load_exactly


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
    try:
        if not settings.start_from:
            return create_model(settings.model, **{"in_channels": data.channels, **wanted})
        folder, about, state = base.read_start(settings)
        model = about.build(**wanted)
    except ValueError as error:
        raise UsageError(f"{settings.model} cannot be built so: {error}") from None
    load_exactly(model, state, str(folder / WEIGHTS))
    return model


def value_range_preprocess(model: nn.Module, data: ImageData) -> Preprocess:
    """Pixels from the lowest to the highest value of the model's `value_range`.

    Small images are resized as they are; of others the middle is kept up to the shorter sides, since a border that is
    cut away could never be drawn.
    """
    config: Any = model.config
    low, high = cast(tuple[float, float], model.value_range)
    mean, std = (-low / (high - low),) * config.in_channels, (1 / (high - low),) * config.in_channels
    return Preprocess(picture_size(config), config.in_channels, mean, std, squash=data.splits["train"].small)
