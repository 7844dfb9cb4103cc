"""Training classifiers of pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from orchard.data import Loader, default_preprocess, mix, open_data
from orchard.data.contracts import ImageData, Preprocess
from orchard.errors import OrchardError, UsageError
from orchard.inference.cost import multiply_adds, weight_bytes
from orchard.inference.loading import Loaded, model_folder
from orchard.models import configuration, create_model, picture_size
from orchard.models.foreign import create_foreign, is_foreign
from orchard.tasks.image_classification import ImageBatch, ImageClassification, Predictions, predict_split
from orchard.training.jobs.base import Job, image_facts, make_fabric, settle_precision, wants_channels_last
from orchard.training.jobs.feeds import LoaderFeed, training_loader
from orchard.training.report import write_report
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved, SourceSettings, TrainSettings
from orchard.weights.portable import read_portable, save_portable


class ImageClassificationJob(Job):
    """A network with a head for the classes of a set of pictures."""

    unit = "pictures"
    task: ImageClassification

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the data and build the model. Raises UsageError or OrchardError for all that does not fit."""
        settings = resolved.settings
        self.data = open_data(settings.data.source, settings.data)
        torch.manual_seed(settings.seed)  # the fresh weights
        self.model = start_model(settings, self.data)
        if settings.freeze_trunk:
            freeze_trunk(self.model)
        config: Any = self.model.config
        size = picture_size(config)
        self.preprocess = start_preprocess(settings, self.data, size, config.in_channels)
        self.shape = (1, config.in_channels, *size)
        self.resolved = settle_precision(resolved, self.model, self.shape, device)
        self.channels_last = wants_channels_last(self.model)
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.task = ImageClassification(self.data.classes, label_smoothing=settings.label_smoothing)
        self.fabric = make_fabric(self.settings, device)

    def feed(self) -> LoaderFeed:
        split = self.data.splits["train"]
        return LoaderFeed(training_loader(self, split, self.preprocess), split, self.settings.accumulate, self._ready)

    def _ready(self, loaded: ImageBatch, step: int) -> ImageBatch:
        """On the device, and mixed where that is asked for."""
        s = self.settings
        batch = loaded.to(self.fabric.device, channels_last=self.channels_last)
        return mix(batch, s.augmentation, len(self.data.classes), s.seed, step)

    def describe(self) -> str:
        return f"{len(self.data.splits['train']):,} pictures to learn from, {len(self.data.classes)} classes"

    def facts(self) -> dict[str, Any]:
        return image_facts(self.data)

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
        return self.task.score(self.predictions(model, "validation"))

    @property
    def judged(self) -> str:
        """The split of the final figures."""
        return "test" if "test" in self.data.splits else "validation"

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        predictions = {name: self.predictions(model, name) for name in ("validation", self.judged)}
        if self.fabric.is_global_zero:
            about = self.portable(
                model, run.path, classes=self.data.classes, preprocess=self.preprocess.to_json()
            )  # fmt: skip
            save_portable(run / "model", model, about)
            (run / "evaluation").mkdir(exist_ok=True)
            for name, said in predictions.items():
                save_file(dict(vars(said)), run / "evaluation" / f"{name}.safetensors")
        return {
            "macs": multiply_adds(model, self.shape),
            "size_bytes": weight_bytes(model),
            **{name: self.task.score(said) for name, said in predictions.items()},
        }

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        said = Predictions(**load_file(run / "evaluation" / f"{self.judged}.safetensors"))
        return write_report(
            run, task=self.task, split=self.data.splits[self.judged], preprocess=self.preprocess, predictions=said,
            model=model,
        )  # fmt: skip


def start_model(settings: TrainSettings, data: ImageData) -> nn.Module:
    """The model to train: fresh, or with the weights of another run or model and a head for these classes."""
    wanted = {"num_classes": len(data.classes), **settings.architecture}
    if settings.start_from:
        return continue_model(settings, wanted)
    if settings.image_size:
        wanted["image_size"] = settings.image_size
    wanted.setdefault("in_channels", data.channels)
    try:
        build = create_foreign if is_foreign(settings.model) else create_model
        return build(settings.model, **wanted)
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


def evaluate_loaded(loaded: Loaded, source: str, split: str, settings: SourceSettings) -> dict[str, float]:
    """Figures on labelled pictures. Their classes must be among the model's, by name; the first that is not is said."""
    data = open_data(source, settings)
    if split not in data.splits:
        raise UsageError(f"{source} has no {split} split; it has {', '.join(data.splits)}")
    strange = [name for name in data.classes if name not in loaded.classes]
    if strange:
        raise OrchardError(
            f"the model of {loaded.folder} does not know the class '{strange[0]}' of {source}; it was not trained on it"
        )
    place = torch.tensor([loaded.classes.index(name) for name in data.classes])
    loader = Loader(data.splits[split], loaded.pictures, None, batch_size=64, seed=0, workers=settings.workers)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = loaded.model.to(device).eval()
    said = predict_split(model, (batch.to(device) for batch in loader.batches(0)))
    said = Predictions(said.logits, place[said.labels], said.indices)
    return ImageClassification(loaded.classes).score(said)
