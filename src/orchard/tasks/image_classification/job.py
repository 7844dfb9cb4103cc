"""Training classifiers of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from orchard.data.batches import ImageBatch
from orchard.data.characters import mirrored_characters
from orchard.data.contracts import ImageData, ImageSplit, Preprocess
from orchard.data.few_labels import few_labels
from orchard.data.loader import Loader
from orchard.data.preprocess import default_preprocess
from orchard.data.settings import FolderSettings, Source
from orchard.data.sources import open_data
from orchard.errors import OrchardError, UsageError
from orchard.given import Given
from orchard.inference.export import Entry, image_inputs
from orchard.inference.from_pixels import FromPixels, pixel_inputs
from orchard.inference.loading import Loaded
from orchard.models import create_model, picture_size
from orchard.models.foreign import create_foreign, is_foreign, tag_remark
from orchard.tasks import base
from orchard.tasks.image_classification import TASK, pretraining
from orchard.tasks.image_classification.distillation import TaughtFeed, start_distillation, student_of
from orchard.tasks.image_classification.ensemble import Ensemble, ensemble_metrics
from orchard.tasks.image_classification.image_objective import ImageObjective, OwnMetric, Predictions, predict_split
from orchard.tasks.image_classification.imbalance import sampling_groups
from orchard.tasks.image_classification.joint import LOSS, joint_settings
from orchard.tasks.image_classification.own_module import start_module
from orchard.tasks.image_classification.robust import COLUMNS, worst_case
from orchard.tasks.image_classification.robustness import check_robustness, robustness
from orchard.tasks.image_classification.settings import EvaluationSettings, Settings, Tta
from orchard.tasks.image_classification.targets import (
    model_objective,
    settle_for_target,
    target_of,
    training_objective,
)  # fmt: skip
from orchard.tasks.image_classification.views import Viewed, Views, mirrored
from orchard.tasks.images import in_value_range, keep_characters, settle_preprocessing
from orchard.tasks.known_classes import fine_tuned_model, missing_classes
from orchard.training.feed import LoaderFeed
from orchard.training.metric import Metric
from orchard.training.phases import Phase
from orchard.training.run import RunFolder
from orchard.training.settings import OptimizerSettings, Resolved
from orchard.weights.portable import save_portable, write_tensors


class Job(base.Job):
    """A network with a head for the classes, or the numbers, of a set of images."""

    task = TASK
    objective: ImageObjective

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the data and build the model. Raises UsageError or OrchardError for all that does not fit."""
        objects = resolved.objects
        settings: Any = resolved.settings
        data = open_data(resolved.source, settings.data)
        self.data = few_labels(data, settings.data.labels_per_class, settings.seed)
        resolved = settle_for_target(resolved, self.data)
        settings = resolved.settings
        torch.manual_seed(settings.seed)  # the fresh weights
        self.model = self.start(resolved)
        pretraining.refuse_pretraining(resolved, self.model)
        if settings.freeze_trunk:
            freeze_trunk(self.model)
        config: Any = self.model.config
        size = picture_size(config)
        found = start_preprocess(settings, self.data, size, config.in_channels)
        if hasattr(self.model, "value_range"):
            found = in_value_range(found, self.model)
        resolved, self.preprocess = settle_preprocessing(resolved, found, settings.start_from)
        resolved = keep_characters(resolved, self.data.characters)
        self.shape = (1, config.in_channels, *size)
        count = len(self.data.splits["train"])
        if settings.start_from and resolved.origins.get("batch_size", "default") == "default":
            why = f"chosen: some steps an epoch from {count:,} images"
            resolved = resolved.choose("batch_size", base.fitting_batch(count), why)
        self.resolved = base.settle_precision(resolved, self.model, self.shape, device)
        self.channels_last = base.wants_channels_last(self.model)
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.objective = training_objective(
            self.data,
            settings,
            auxiliary_weight=getattr(self.model, "auxiliary_weight", 0.0),
            own_metrics=objects.metrics,
            joint=joint_settings(resolved, self.model),
            robust=worst_case(settings.robust, self.preprocess, self.model),
        )
        self.teacher = start_distillation(settings.distillation, self.objective, self.preprocess, device)
        if self.teacher is not None:
            self.model = self.teacher.with_hint(self.model)
        self.fabric = base.make_fabric(self.settings, device)

    def start(self, resolved: Resolved) -> nn.Module:
        """The model to train."""
        settings: Any = resolved.settings
        if resolved.objects.module is None:
            return start_model(settings, self.data)
        return start_module(resolved.objects.module, settings, self.data)

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @property
    def metric(self) -> Metric:
        return TASK.metric_named(self.objective.metric)

    @property
    def splits(self) -> Mapping[str, ImageSplit]:
        return self.data.splits

    @property
    def phases(self) -> tuple[Phase, ...]:
        phases = self.objective.phases if self.teacher is None else self.teacher.phases
        steps = self.feed().batches_per_epoch
        return pretraining.with_pretraining(phases, self.model, self.settings.pretraining, steps)

    @property
    def logged(self) -> Sequence[str]:
        more = ((pretraining.ERROR, self.settings.pretraining.epochs), (LOSS, self.objective.joint))
        moved = COLUMNS if self.objective.robust else ()
        return (*super().logged, *(name for name, wanted in more if wanted), *moved)

    def optimizer_settings(self, name: str) -> OptimizerSettings:
        return pretraining.optimizer_settings(name, self.settings.optimizer, self.settings.pretraining)

    @property
    def head_epochs(self) -> float:
        return self.settings.head_epochs

    def train_mode(self, model: nn.Module) -> None:
        """A frozen trunk stays in evaluation mode, so that its norms' statistics do not move either."""
        model.train()
        if self.settings.freeze_trunk:
            for module in model.modules():
                parameters = list(module.parameters(recurse=False))
                if parameters and not any(p.requires_grad for p in parameters):
                    module.eval()

    def feed(self) -> LoaderFeed:
        split = self.data.splits["train"]
        groups = sampling_groups(self.settings, self.data)
        loader = base.training_loader(self, split, self.preprocess, self.settings.augmentation, groups)
        given = (loader, self.settings.accumulate, self._ready, split.key)
        return LoaderFeed(*given) if self.teacher is None else TaughtFeed(*given, self.teacher)

    def _ready(self, loaded: ImageBatch, number: int) -> ImageBatch:
        """On the device, and mixed where that is asked for."""
        s = self.settings
        batch = loaded.to(self.fabric.device, channels_last=self.channels_last)
        return self.objective.mix(batch, s.augmentation, s.seed, number)

    def describe(self) -> str:
        fresh = is_foreign(self.settings.model) and not self.settings.start_from  # others expect pretrained ones there
        count, names = len(self.data.splits["train"]), self.data.classes
        what = {"class": f"{len(names)} classes", "classes": f"{len(names)} classes, several an image"}.get(
            self.data.target, f"a regression of {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        )
        return f"{count:,} images to learn from, {what}" + (", random weights" if fresh else "")

    def manifest(self) -> dict[str, Any]:
        teacher = {} if self.teacher is None else {"teacher": self.teacher.manifest()}
        return base.image_manifest(self.data) | teacher

    def predictions(self, model: nn.Module, split: str) -> Predictions:
        """What `model` predicts for a split, each process its piece of it."""
        s, fabric = self.settings, self.fabric
        loader = Loader(
            self.data.splits[split], self.preprocess, None, batch_size=max(s.batch_size, 64), seed=s.seed,
            workers=s.data.workers, rank=fabric.global_rank, world=fabric.world_size,
        )  # fmt: skip
        with fabric.autocast():
            mine = predict_split(model, (batch.to(fabric.device) for batch in loader.batches(0)))
        return Predictions.merge(base.gather(fabric, mine)) if fabric.world_size > 1 else mine

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        found = self.predictions(model, "validation")
        self.objective.settle(found)
        return self.objective.compute_metrics(found)

    def remarks(self) -> list[str]:
        splits = ((name, torch.from_numpy(self.data.splits[name].labels)) for name in self.final_splits)
        found = [line for name, labels in splits if (line := missing_classes(self.objective.missing(labels), name))]
        remark = "" if self.settings.start_from else tag_remark(self.settings.model)
        mirrored = mirrored_characters(self.settings.augmentation, self.data.characters)
        taken = pretraining.remark(self.model, self.settings.pretraining, self.settings.epochs)
        return [*found, *mirrored, *taken, *([remark] if remark else [])]

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(student_of(model), self.shape)

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        model = student_of(model)
        about = self.portable(
            model, run.path, classes=self.data.classes, preprocess=self.preprocess.to_json(), facts=self.objective.facts
        )
        save_portable(run / "model", model, about)

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        predictions = {name: self.predictions(model, name) for name in self.final_splits}
        written = self.objective.facts
        self.objective.settle(predictions["validation"])
        if self.fabric.is_global_zero:
            if self.objective.facts != written:  # of other weights than the best
                self.write_model(model, run)
            (run / "evaluation").mkdir(exist_ok=True)
            for name, found in predictions.items():
                write_tensors(dict(vars(found)), run / "evaluation" / f"{name}.safetensors")
        metrics = {name: self.objective.final_metrics(found) for name, found in predictions.items()}
        own = {"parameters": sum(p.numel() for p in student_of(model).parameters())}
        return own | self.cost(model) | metrics

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        write_report = TASK.load(self.objective.report)
        predictions = Predictions(**load_file(run / "evaluation" / f"{self.report_split}.safetensors"))
        return write_report(  # type: ignore[no-any-return]
            run, objective=self.objective, split=self.data.splits[self.report_split], preprocess=self.preprocess,
            predictions=predictions, model=student_of(model),
        )  # fmt: skip


def start_model(settings: Settings, data: ImageData) -> nn.Module:
    """The model to train: fresh, or with the weights of another run or model and a head for these classes."""
    wanted = {"num_classes": len(data.classes), **settings.architecture}
    if settings.image_size:
        wanted["image_size"] = settings.image_size
    if settings.start_from:
        return fine_tuned_model(settings, wanted, data.classes, data.target)
    wanted.setdefault("in_channels", data.channels)
    try:
        build = create_foreign if is_foreign(settings.model) else create_model
        return build(settings.model, **wanted)
    except ValueError as error:
        raise UsageError(f"{settings.model} cannot be built so: {error}") from None


def freeze_trunk(model: nn.Module) -> None:
    """Only the head learns."""
    head = f"{model.head_name}."
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(head))


def start_preprocess(settings: Settings, data: ImageData, size: tuple[int, int], channels: int) -> Preprocess:
    """The preprocessing the weights were trained with, else one that fits the data."""
    if settings.start_from:
        _, about, _ = base.read_start(settings)
        return dataclasses.replace(Preprocess.from_json(about.preprocess), size=size)
    return default_preprocess(data, size, channels)


def evaluate_loaded(
    loaded: Loaded,
    source: str | Given,
    split: str,
    settings: Source,
    metrics: Mapping[str, OwnMetric] | None = None,
    others: Sequence[Loaded] = (),
    evaluation: EvaluationSettings | None = None,
) -> dict[str, Any]:
    """Metrics on labelled images, whose classes must be among the model's, by name; own ones beside the others.

    Of a model with `others`: those of their mean, and under "members" those of each.
    """
    objective, tta = model_objective(loaded, own_metrics=metrics), evaluation.tta if evaluation else "none"
    if others:
        Ensemble.of((loaded, *others))  # what does not go together is said before anything is predicted
    if isinstance(settings, FolderSettings) and settings.target is None:
        settings = settings.model_copy(update={"target": target_of(loaded)})
    check_robustness(evaluation, target=target_of(loaded), members=1 + len(others))
    data = open_data(source, settings)
    if data.target != target_of(loaded):
        learned = target_of(loaded)
        raise UsageError(
            f"the model of {loaded.folder} has learned data.target={learned}; {data.source} is {data.target}"
        )
    images = base.pick_split(data.splits, split, source)
    if warning := mirrored(tta, loaded.classes):
        base.warn(warning)
    found = _aligned(loaded, images, data, settings, tta)
    if missing := missing_classes(objective.missing(found.labels), split):
        base.warn(missing)
    if not others:
        more = robustness(loaded, images, found, settings.workers, evaluation)
        return {**base.counted(loaded, images), **objective.final_metrics(found), **more}
    every = [found, *(_aligned(one, images, data, settings, tta) for one in others)]
    counts = base.counted(loaded, images, others=others)
    return {**counts, **ensemble_metrics((loaded, *others), every, metrics)}


def _aligned(loaded: Loaded, images: ImageSplit, data: ImageData, settings: Source, tta: Tta) -> Predictions:
    """What a model predicts for a split of some data, with labels in the order of its own classes."""
    views = Views(tta, loaded.pictures.size)
    loader = Loader(images, views.preprocess(loaded.pictures), None, batch_size=64, seed=0, workers=settings.workers)
    labels = model_objective(loaded).align(loader.labels, data.classes)
    if isinstance(labels, str):
        raise OrchardError(f"the model of {loaded.folder} {labels.format(source=data.source)}")
    model, device = base.on_device(loaded.model)
    if tta != "none":
        model = Viewed(model, views, loaded.outputs)
    found = predict_split(model, (batch.to(device) for batch in loader.batches(0)))
    return Predictions(found.logits, labels[found.indices], found.indices)


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of."""
    return [Entry("", loaded.model, image_inputs(loaded), "logits", images=True)]


def pixel_entries(loaded: Loaded) -> list[Entry]:
    """The same from pixels to probabilities, or to numbers in the unit of the training data."""
    module = FromPixels(loaded.model, loaded.pictures, loaded.outputs).eval()
    return [Entry("", module, pixel_inputs(loaded), loaded.outputs.result, pixels=True)]
