"""What tasks whose models stand on a classifier's trunk share: how such a model starts, and what of it learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from orchard.data.contracts import Preprocess
from orchard.errors import OrchardError, UsageError
from orchard.models import create_model, landmark_of, picture_size
from orchard.tasks import base
from orchard.tasks.known_classes import fine_tuned_model
from orchard.weights.folders import model_folder
from orchard.weights.official import preprocess_of
from orchard.weights.portable import read_portable


class TrunkStart(base.Start, Protocol):
    """Settings that may name a classifier whose trunk a model begins with."""

    architecture: dict[str, Any]
    trunk_from: str | None


def start_model(settings: TrunkStart, classes: Sequence[str]) -> nn.Module:
    """The model to train: fresh, with a classifier's weights in its trunk, or with those of another run or model."""
    wanted = {"num_classes": len(classes), **settings.architecture}
    if settings.start_from:
        return fine_tuned_model(settings, wanted, classes)
    try:
        model = create_model(settings.model, **wanted)
    except ValueError as error:
        raise UsageError(f"{settings.model} cannot be built so: {error}") from None
    if settings.trunk_from:
        load_trunk(model, model_folder(Path(settings.trunk_from)))
    return model


def load_trunk(model: Any, folder: Path) -> None:
    """Give a model's trunk the weights of a classifier; what follows the classifier's maps is left out, unless the
    model has a use for it (`take_classifier`).

    Raises UsageError for another classifier than the trunk, OrchardError for one of another shape.
    """
    about, state = read_portable(folder)
    if not hasattr(model, "trunk"):
        raise UsageError(f"setting 'trunk_from': {type(model).__name__} has no trunk; leave it out")
    if about.model != model.config.trunk:
        raise UsageError(f"{folder} holds a {about.model}, the trunk is a {model.config.trunk}")
    expected = model.trunk.state_dict()
    for name, tensor in expected.items():
        if name not in state or state[name].shape != tensor.shape:
            shape = tuple(state[name].shape) if name in state else "none"
            raise OrchardError(f"{folder}: the trunk needs '{name}' of shape {tuple(tensor.shape)}, there is {shape}")
    model.trunk.load_state_dict({name: state[name] for name in expected})
    if hasattr(model, "take_classifier"):
        model.take_classifier(state)


def freeze(model: nn.Module, prefixes: tuple[str, ...]) -> None:
    """Parameters whose names begin so do not learn; UsageError for a prefix that no name has."""
    for prefix in prefixes:
        chosen = [parameter for name, parameter in model.named_parameters() if name.startswith(prefix)]
        if not chosen:
            raise UsageError(f"setting 'freeze': no parameter's name begins with '{prefix}'")
        for parameter in chosen:
            parameter.requires_grad_(False)


def start_preprocess(settings: TrunkStart, config: Any) -> Preprocess:
    """The preprocessing the weights were trained with, else ImageNet's."""
    if settings.start_from:
        _, about, _ = base.read_start(settings)
        return dataclasses.replace(Preprocess.from_json(about.preprocess), size=picture_size(config))
    return Preprocess.from_json(preprocess_of(landmark_of(settings.model), config, ""))
