"""What tasks share whose models stand on a classifier's trunk: how such a model starts, and how it is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from orchard.data.contracts import Preprocess
from orchard.data.indexed import workers_for
from orchard.errors import OrchardError, UsageError
from orchard.models import create_model, landmark_of, picture_size
from orchard.tasks import base
from orchard.tasks.known_classes import fine_tuned_model
from orchard.training.settings import Resolved
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


class TrunkJob(base.Job):
    """A network on a trunk that learns from images with boxes or masks. What is marked on them, a task's own job says:
    the objective, the loaders, the answers."""

    data: Any  # of the kind of the task
    preprocess: Preprocess
    shape: tuple[int, ...]  # one image of the variant's size, (1, C, H, W)

    def start(self, resolved: Resolved, data: Any, device: torch.device) -> None:
        """Build the model for `data` and settle how it is computed.

        Raises UsageError or OrchardError for all that does not fit.
        """
        settings: Any = resolved.settings
        for split in ("train", "validation"):
            base.pick_split(data.splits, split, settings.data.source)
        self.data = data
        torch.manual_seed(settings.seed)  # the fresh weights
        self.model = start_model(settings, data.classes)
        freeze(self.model, settings.freeze)
        config: Any = self.model.config
        self.preprocess = start_preprocess(settings, config)
        self.shape = (1, config.in_channels, *picture_size(config))
        self.resolved = base.settle_precision(resolved, self.model, self.shape, device)
        self.channels_last = base.wants_channels_last(self.model)
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.fabric = base.make_fabric(self.settings, device)

    @property
    def size(self) -> tuple[int, int]:
        """The variant's height and width."""
        return self.shape[2], self.shape[3]

    @property
    def splits(self) -> Mapping[str, Any]:
        return self.data.splits  # type: ignore[no-any-return]

    @property
    def workers(self) -> int:
        """Processes that make batches."""
        settings: Any = self.settings
        return workers_for(settings.data.workers, self.data.splits["train"], self.fabric.world_size)

    def ready(self, batch: Any) -> Any:
        """A batch on the device."""
        return batch.to(self.fabric.device, channels_last=self.channels_last)

    def manifest(self) -> dict[str, Any]:
        data = self.data
        counts = {name: len(split) for name, split in data.splits.items()}
        table = base.data_manifest(data.name, data.source, data.format, counts, data.fingerprint, data.problems)
        return {**table, "classes": data.classes}

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(model, self.shape)
