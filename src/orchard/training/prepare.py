"""From settings to everything a training of picture classifiers needs."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from orchard.data import Loader, default_preprocess, mix, open_data
from orchard.data.contracts import ImageData, Preprocess
from orchard.errors import OrchardError, UsageError
from orchard.inference.cost import multiply_adds
from orchard.inference.hardware import native_bf16
from orchard.inference.loading import model_folder
from orchard.models import configuration, create_model, picture_size
from orchard.models.foreign import create_foreign, is_foreign
from orchard.tasks.image_classification import ImageBatch, ImageClassification, Predictions, predict_split
from orchard.training.settings import Resolved, TrainSettings
from orchard.weights.portable import Portable, architecture_of, read_portable

# Multiply-adds per picture below which, on a CPU, casting costs more than bf16 saves. Convolutions gain much sooner.
WORTH_BF16 = {"convolutional": 3e6, "other": 200e6}


@dataclass
class Job:
    """One training, ready to go."""

    resolved: Resolved
    data: ImageData
    preprocess: Preprocess
    model: nn.Module
    task: ImageClassification
    fabric: Fabric

    @property
    def settings(self) -> TrainSettings:
        return self.resolved.settings

    def portable(self, origin: Path) -> Portable:
        """What the model's folder says beside the weights."""
        return Portable(
            self.settings.model,
            architecture_of(self.model),
            self.task.name,
            self.data.classes,
            self.preprocess.to_json(),
            str(origin),
        )

    def predictions(self, model: nn.Module, split: str) -> Predictions:
        """What `model` says of a split, each process predicting its piece of it."""
        s, fabric = self.settings, self.fabric
        loader = Loader(
            self.data.splits[split], self.preprocess, None, batch_size=max(s.batch_size, 64), seed=s.seed,
            workers=s.data.workers, rank=fabric.global_rank, world=fabric.world_size,
        )  # fmt: skip
        with fabric.autocast():
            mine = predict_split(model, (batch.to(fabric.device) for batch in loader.batches(0)))
        if fabric.world_size == 1:
            return mine
        parts: list[Any] = [None] * fabric.world_size
        torch.distributed.all_gather_object(parts, mine)
        return Predictions.merge(parts)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """The validation figures."""
        return self.task.score(self.predictions(model, "validation"))


class ImageFeed:
    """The batches of each step: loaded, moved to the device, mixed, and cut into micro-batches."""

    def __init__(self, job: Job):
        s, fabric = job.settings, job.fabric
        self.job = job
        self.loader = Loader(
            job.data.splits["train"], job.preprocess, s.augmentation, batch_size=s.batch_size, seed=s.seed,
            workers=s.data.workers, rank=fabric.global_rank, world=fabric.world_size,
        )  # fmt: skip
        self.steps_per_epoch = len(self.loader)
        self.channels_last = wants_channels_last(job.model)

    def steps(self, start: int) -> Iterator[list[ImageBatch]]:
        settings = self.job.settings
        step = start
        while True:
            epoch, offset = divmod(step, self.steps_per_epoch)
            for loaded in self.loader.batches(epoch, offset):
                batch = loaded.to(self.job.fabric.device, channels_last=self.channels_last)
                batch = mix(batch, settings.augmentation, len(self.job.data.classes), settings.seed, step)
                yield batch.parts(settings.accumulate)
                step += 1

    def name_records(self, batch: ImageBatch) -> str:
        """The first pictures of a batch, by the names a person knows them by."""
        split = self.job.data.splits["train"]
        keys = [split.key(int(index)) for index in batch.indices[:3]]
        return ", ".join(keys) + (f" and {len(batch) - 3} more" if len(batch) > 3 else "")


def wants_channels_last(model: nn.Module) -> bool:
    """Convolutional networks run faster with the channels innermost; a transformer has one convolution."""
    return sum(isinstance(module, nn.Conv2d) for module in model.modules()) > 2


def prepare(resolved: Resolved, device: torch.device) -> Job:
    """Read the data and build the model. Raises UsageError or OrchardError for all that does not fit."""
    settings = resolved.settings
    data = open_data(settings.data.source, settings.data)
    torch.manual_seed(settings.seed)  # the fresh weights
    model, resolved = start_model(resolved, data)
    settings = resolved.settings
    if settings.freeze_trunk:
        freeze_trunk(model)
    config: Any = model.config
    size = picture_size(config)
    preprocess = start_preprocess(settings, data, size, config.in_channels)
    if settings.precision == "auto":
        precision, why = choose_precision(model, (1, config.in_channels, *size), device)
        resolved = resolved.choose("precision", precision, why)
        settings = resolved.settings
    if wants_channels_last(model):
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    task = ImageClassification(data.classes, label_smoothing=settings.label_smoothing)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # settings.json says what it would say
    fabric = Fabric(
        accelerator=device.type,
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy="auto" if settings.devices * settings.nodes == 1 else "ddp",
        precision="bf16-mixed" if settings.precision == "bf16" else "32-true",
    )
    return Job(resolved, data, preprocess, model, task, fabric)


def choose_precision(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> tuple[str, str]:
    """bf16 where the hardware has it and the model is large enough to gain, and why."""
    if not native_bf16(device):
        return "fp32", "chosen: this hardware has no bf16 arithmetic"
    macs = multiply_adds(model, shape)
    kind = "convolutional" if wants_channels_last(model) else "other"
    if device.type == "cpu" and macs < WORTH_BF16[kind]:
        return "fp32", f"chosen: {macs / 1e6:.1f}M multiply-adds a picture are too few to gain from bf16"
    return "bf16", "chosen: this hardware has bf16 arithmetic"


def start_model(resolved: Resolved, data: ImageData) -> tuple[nn.Module, Resolved]:
    """The model to train: fresh, or with the weights of another run or model and a head for these classes."""
    settings = resolved.settings
    wanted = {"num_classes": len(data.classes), **settings.architecture}
    if settings.start_from:
        return continue_model(settings, wanted), resolved
    if settings.image_size:
        wanted["image_size"] = settings.image_size
    wanted.setdefault("in_channels", data.channels)
    try:
        if is_foreign(settings.model):
            return create_foreign(settings.model, **wanted), resolved
        return create_model(settings.model, **wanted), resolved
    except ValueError as error:
        raise UsageError(f"{settings.model} cannot be built so: {error}") from None


def continue_model(settings: TrainSettings, wanted: Mapping[str, Any]) -> nn.Module:
    """A model with the weights of `start_from`; the head is new where the number of classes is another."""
    folder = model_folder(Path(str(settings.start_from)))
    about, state = read_portable(folder)
    if about.model != settings.model:
        raise UsageError(f"{folder} holds a {about.model}, not a {settings.model}; train {about.model} from it")
    changes = dict(wanted)
    if settings.image_size:
        changes["image_size"] = settings.image_size
    model = about.build(**changes)
    if hasattr(model, "fit_state"):
        saved = configuration(about.model, **about.architecture)
        state = model.fit_state(state, saved)  # type: ignore[operator]
    fresh = model.state_dict()
    head = f"{model.head_name}."
    for name, tensor in fresh.items():
        if name in state and state[name].shape != tensor.shape and not name.startswith(head):
            raise OrchardError(
                f"{folder}: '{name}' has shape {tuple(state[name].shape)}, here {tuple(tensor.shape)} is needed; only "
                f"the head and the picture size may change"
            )
    fits = {k: state[k] if k in state and state[k].shape == v.shape else v for k, v in fresh.items()}
    missing = [name for name in fresh if name not in state and not name.startswith(head)]
    if missing:
        raise OrchardError(f"{folder} has no tensor '{missing[0]}', which this {settings.model} needs")
    model.load_state_dict(fits)
    return model


def freeze_trunk(model: nn.Module) -> None:
    """Only the head learns."""
    head = f"{model.head_name}."
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(head))


def start_preprocess(settings: TrainSettings, data: ImageData, size: tuple[int, int], channels: int) -> Preprocess:
    """The preprocessing the weights were trained with, else one that fits the data."""
    if settings.start_from:
        about, _ = read_portable(model_folder(Path(settings.start_from)))
        return dataclasses.replace(Preprocess.from_json(about.preprocess), size=size)
    return default_preprocess(data, size, channels)
