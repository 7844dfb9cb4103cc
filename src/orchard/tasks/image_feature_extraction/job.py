"""Learning features of images without labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import nn

from orchard.data.contracts import ImageSplit, Preprocess
from orchard.data.loader import Loader
from orchard.data.preprocess import default_preprocess
from orchard.data.settings import PictureSource
from orchard.data.sources import open_data
from orchard.data.unlabelled import open_with_classes
from orchard.data.views import TwoViews, ViewsBatch
from orchard.errors import UsageError
from orchard.given import Given
from orchard.inference.export import Entry, image_inputs, method_entry
from orchard.inference.loading import Loaded
from orchard.models import picture_size
from orchard.tasks import base
from orchard.tasks.image_feature_extraction import TASK
from orchard.tasks.image_feature_extraction.features import (
    SplitFeatures,
    encoder_for,
    judge,
    knn_accuracy,
    split_features,
    split_pixels,
)
from orchard.tasks.image_feature_extraction.objective import Contrast, encoder_of, make_objective
from orchard.tasks.image_feature_extraction.settings import EvaluationSettings, Settings
from orchard.tasks.images import keep_characters, settle_preprocessing, start_model
from orchard.training.feed import LoaderFeed
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.portable import save_portable, write_tensors

VIEWS_BATCH = 128  # images in a batch of the validation's contrastive loss, which depends on it


class Job(base.Job):
    """A trunk with a projection head, for a set of images whose classes are not learned from."""

    task = TASK
    objective: Contrast

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the data and build the model. Raises UsageError or OrchardError for all that does not fit."""
        settings = cast(Settings, resolved.settings)
        if settings.devices * settings.nodes > 1 or settings.accumulate > 1:
            raise UsageError(f"{TASK.name} learns on one device, a whole batch at a time; leave out devices, nodes and "
                             "accumulate")  # fmt: skip
        self.data = open_with_classes(resolved.source, settings.data)
        torch.manual_seed(settings.seed)  # the fresh weights, and the queue
        model = start_model(settings, self.data)
        config: Any = model.config
        found = start_preprocess(settings, self.data, picture_size(config), config.in_channels)
        resolved, self.preprocess = settle_preprocessing(resolved, found, settings.start_from)
        resolved = keep_characters(resolved, self.data.classes)
        self.shape = (1, config.in_channels, *picture_size(config))
        self.resolved = base.settle_precision(resolved, model, self.shape, device)
        self.channels_last = base.wants_channels_last(model)
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        size = min(settings.batch_size, len(self.data.splits["train"]))
        self.objective, self.model = make_objective(settings.contrast, model, size)
        self.fabric = base.make_fabric(self.settings, device)

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @property
    def splits(self) -> Mapping[str, ImageSplit]:
        return self.data.splits

    @property
    def labelled(self) -> bool:
        return len(self.data.classes) > 1

    def views(self, split: str, batch_size: int) -> TwoViews:
        """Two random views of every image of a split."""
        s = self.settings
        return TwoViews(
            Loader(
                self.data.splits[split], self.preprocess, s.augmentation, batch_size=batch_size, seed=s.seed,
                workers=s.data.workers,
            )
        )  # fmt: skip

    def feed(self) -> LoaderFeed:
        views = self.views("train", self.settings.batch_size)
        return LoaderFeed(views, 1, lambda batch, number: self._ready(batch), self.data.splits["train"].key)

    def _ready(self, batch: ViewsBatch) -> ViewsBatch:
        return batch.to(self.fabric.device, channels_last=self.channels_last)

    def describe(self) -> str:
        known = f"{len(self.data.classes)} classes to judge by" if self.labelled else "without classes"
        return f"{len(self.data.splits['train']):,} images to learn from, {known}"

    def manifest(self) -> dict[str, Any]:
        return base.image_manifest(self.data) | ({} if self.labelled else {"classes": []})

    def contrast(self, model: nn.Module, split: str) -> dict[str, float]:
        """The metrics that take no label, of views that are the same in every evaluation."""
        views = self.views(split, VIEWS_BATCH)
        batches: Iterator[ViewsBatch] = (self._ready(views.batch(0, number)) for number in range(len(views)))
        with self.fabric.autocast():
            return self.objective.compute_metrics(encoder_of(model), batches)

    def features(self, model: nn.Module, split: str) -> SplitFeatures:
        with self.fabric.autocast():
            return split_features(
                encoder_of(model), self.data.splits[split], self.preprocess, self.settings.evaluation.images
            )

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        metrics = self.contrast(model, "validation")
        if self.labelled:
            known, asked = self.features(model, "train"), self.features(model, "validation")
            metrics["knn_accuracy"] = knn_accuracy(known, asked, self.settings.evaluation)
        return metrics

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(encoder_of(model), self.shape)

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        encoder = encoder_of(model)
        save_portable(run / "model", encoder, self.portable(encoder, run.path, preprocess=self.preprocess.to_json()))

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        from orchard.tasks.image_feature_extraction.report import look_at

        known = self.features(model, "train")
        metrics: dict[str, Any] = {}
        for split in self.final_splits:
            asked = self.features(model, split)
            metrics[split] = self.contrast(model, split)
            if self.labelled:
                metrics[split] |= judge(known, asked, self.settings.evaluation)
        (run / "evaluation").mkdir(exist_ok=True)
        write_tensors(look_at(known, asked), evaluation_file(run))  # of the last split, which the report is of
        encoder = encoder_of(model)
        return {"parameters": sum(one.numel() for one in encoder.parameters()), **self.cost(model), **metrics}

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.image_feature_extraction.report import write_feature_report

        return write_feature_report(
            run, seen=load_file(evaluation_file(run)), known=self.data.splits["train"],
            asked=self.data.splits[self.report_split], classes=self.data.classes if self.labelled else (),
            settings=self.settings,
        )  # fmt: skip


def evaluation_file(run: RunFolder) -> Path:
    return run / "evaluation" / "features.safetensors"


def start_preprocess(settings: Settings, data: Any, size: tuple[int, int], channels: int) -> Preprocess:
    """The preprocessing the weights were trained with, else one that fits the data."""
    if settings.start_from:
        _, about, _ = base.read_start(settings)
        return dataclasses.replace(Preprocess.from_json(about.preprocess), size=size)
    return default_preprocess(data, size, channels)


def evaluate_loaded(
    loaded: Loaded, source: str | Given, split: str, settings: PictureSource, evaluation: EvaluationSettings
) -> dict[str, float]:
    """k-NN and linear accuracy on one split of labelled images; the other images of the same classes that these compare
    with and learn from are the training split's."""
    given = settings.model_dump(exclude={"test_fraction"} if settings.whole else set())
    data = open_data(source, type(settings).model_validate(given))  # with a training split, which a probe needs
    images = base.pick_split(data.splits, split, source)
    model, _ = base.on_device(encoder_for(loaded, evaluation.layer))
    known = split_features(model, data.splits["train"], loaded.pictures, evaluation.images)
    asked = split_features(model, images, loaded.pictures, evaluation.images)
    found = {**base.counted(loaded, images, len(asked.labels)), "training_images": len(known.labels)}
    metrics = judge(known, asked, evaluation)
    if evaluation.layer == "all":  # what features have to be better than
        known, asked = (split_pixels(one, loaded.pictures, evaluation.images) for one in (data.splits["train"], images))
        metrics |= {f"{name}_pixels": value for name, value in judge(known, asked, evaluation).items()}
    return found | metrics


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: images to features."""
    return [method_entry("", loaded.model, "features", image_inputs(loaded), "features", images=True)]
