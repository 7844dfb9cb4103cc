"""Training generative models of images: any images, without classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.data.contracts import ImageSplit, Preprocess
from orchard.data.loader import Loader
from orchard.data.settings import CaptionSource
from orchard.data.unlabelled import open_pictures
from orchard.given import Given
from orchard.inference.export import Entry, example_inputs, method_entry
from orchard.inference.loading import Loaded
from orchard.models import landmark_of
from orchard.tasks import base
from orchard.tasks.images import start_model, value_range_preprocess, whole_if_small
from orchard.tasks.unconditional_image_generation import TASK, growing
from orchard.tasks.unconditional_image_generation.diversity import falls
from orchard.tasks.unconditional_image_generation.judge import BATCH, METRICS, compare, judge_again, make_judge
from orchard.tasks.unconditional_image_generation.learner import GenerationLearner
from orchard.tasks.unconditional_image_generation.objective import (
    Objective,
    family_named,
    family_of,
    make_images,
    settle_objective,
)
from orchard.tasks.unconditional_image_generation.settings import OBJECTIVES, GenerationSettings, Options, Settings
from orchard.training.feed import LoaderFeed
from orchard.training.metric import Metric
from orchard.training.run import RunFolder
from orchard.training.settings import OptimizerSettings, Resolved
from orchard.weights.portable import save_portable, write_tensors

SEED = 0  # of the noise that is judged: the same in every evaluation of every run


class Job(base.Job):
    """A generative model for a set of images, with the objective that the settings name."""

    task = TASK
    objective: Objective
    model: GenerationLearner

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the data and build the model. Raises UsageError or OrchardError for all that does not fit."""
        settings = cast(Settings, resolved.settings)
        self.data = open_pictures(resolved.source, settings.data)
        torch.manual_seed(settings.seed)  # the fresh weights
        model = start_model(settings, self.data)
        self.preprocess = value_range_preprocess(model, self.data)
        self.inputs = tuple(landmark_of(settings.model).example(model.config, 1, torch.Generator()).values())
        resolved = settle_objective(resolved, model)
        self.resolved = base.settle_precision(resolved, model, self.inputs, device)
        family = family_named(OBJECTIVES[str(self.settings.objective)].family)
        self.objective = family.make_objective(self.settings, model)
        self.channels_last = base.wants_channels_last(model)
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)
        shape = (self.preprocess.channels, *self.preprocess.size)
        self.model = GenerationLearner(model, shape, self.objective.memory)
        self.fabric = base.make_fabric(self.settings, device)
        self.judge = make_judge(settings.generation.judge, self.preprocess.channels, device)
        self.real: dict[str, Tensor] = {}  # features by split, computed once
        self.coverages: list[tuple[int, float]] = []  # of this process's evaluations, by step

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @property
    def metric(self) -> Metric:
        """Of a pair that grows the last evaluation is kept: small images, enlarged, may be nearer than large ones."""
        return dataclasses.replace(self.task.metric, selects=not growing.grows(self.model.model))

    @property
    def splits(self) -> Mapping[str, ImageSplit]:
        return self.data.splits

    @property
    def logged(self) -> Sequence[str]:
        return (*METRICS, *self.objective.logged)

    def optimizer_settings(self, name: str) -> OptimizerSettings:
        return self.objective.optimizer_settings(name, self.settings.optimizer)

    def feed(self) -> LoaderFeed:
        split = self.data.splits["train"]
        loader = base.training_loader(self, split, self.preprocess, self.settings.augmentation)
        return LoaderFeed(loader, self.settings.accumulate, lambda batch, number: self._ready(batch), split.key)

    def _ready(self, batch: ImageBatch) -> ImageBatch:
        return batch.to(self.fabric.device, channels_last=self.channels_last)

    def describe(self) -> str:
        count = f"{len(self.data.splits['train']):,} images to learn from"
        return f"{count}; {self.settings.objective}: {self.objective.describe()}; judged by {self.judge.words}"

    def manifest(self) -> dict[str, Any]:
        return {**base.image_manifest(self.data), "classes": []}

    def real_features(self, split: str) -> Tensor:
        """Features of up to `generation.samples` images of a split, at even distances."""
        if split not in self.real:
            images = real_images(self.data.splits[split], self.preprocess, self.settings.generation.samples)
            self.real[split] = self.judge.features(images)
        return self.real[split]

    def generated(self, model: nn.Module, count: int) -> Tensor:
        with self.fabric.autocast():
            return generated_images(model, self.preprocess, count)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """The metrics of as many generated images as there are real ones in the sample of the validation split."""
        real = self.real_features("validation")
        images = self.generated(cast(GenerationLearner, model).model, len(real))
        self.model.remember(images)
        found = compare(real, self.judge.features(images))
        said = len(falls(self.coverages))
        self.coverages.append((int(self.model.step), found["coverage"]))
        for line in falls(self.coverages)[said:]:
            base.warn(line)
        return found | self.measured(model, "validation")

    def measured(self, model: nn.Module, split: str) -> dict[str, float]:
        """The family's own metrics, of as many real images as are compared."""
        images, most = self.data.splits[split], self.settings.generation.samples
        with self.fabric.autocast():
            return measure(cast(GenerationLearner, model).model, images, self.preprocess, most)

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(cast(GenerationLearner, model).model, *self.inputs)

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        made = cast(GenerationLearner, model).model
        facts = {**self.judge.to_json(), "samples": self.settings.generation.samples}
        about = self.portable(made, run.path, preprocess=self.preprocess.to_json(), facts=facts)
        save_portable(run / "model", made, about)

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        from orchard.tasks.unconditional_image_generation.report import NEAREST, SHOWN

        made = cast(GenerationLearner, model).model
        most = max(len(self.real_features(split)) for split in self.final_splits)
        images = self.generated(made, most)
        features = self.judge.features(images)
        metrics: dict[str, Any] = {}
        for split in self.final_splits:
            real = self.real_features(split)
            metrics[split] = compare(real, features[: len(real)]) | self.measured(model, split)
        real = self.real_features(self.report_split)
        training = self.real_features("train")[: len(real)]
        if self.fabric.is_global_zero:
            (run / "evaluation").mkdir(exist_ok=True)
            seen = {
                "real": real_images(self.data.splits[self.report_split], self.preprocess, SHOWN),
                "generated": images[:SHOWN],
                "nearest": self.nearest(features[:NEAREST]),
                "real_features": real,
                "generated_features": features[: len(real)],
                "history": torch.stack([row for _, row in self.model.moments()] or [self.model.history[0]]),
                "steps": torch.tensor([step for step, _ in self.model.moments()] or [0]),
            }
            write_tensors({key: value.cpu().contiguous() for key, value in seen.items()}, evaluation_file(run))
        # how far as many real images are apart, which is as near as anything can be expected to come
        return {**self.cost(model), "judge": self.judge.words, **metrics, "training_images": compare(real, training)}

    def nearest(self, features: Tensor) -> Tensor:
        """The training images, of those that are compared, nearest to features (N, D): (N, C, H, W) uint8."""
        found = torch.cdist(features, self.real_features("train")).argmin(1)
        return real_images(self.data.splits["train"], self.preprocess, self.settings.generation.samples)[found]

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.unconditional_image_generation.report import write_generation_report

        seen = load_file(evaluation_file(run))
        return write_generation_report(run, seen=seen, curves=self.objective.curves)


def evaluation_file(run: RunFolder) -> Path:
    return run / "evaluation" / "images.safetensors"


def chosen_batches(split: ImageSplit, preprocess: Preprocess, count: int) -> Iterator[ImageBatch]:
    """Up to `count` images of a split at even distances, as the model sees them."""
    chosen = np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(np.int64))
    loader = Loader(split, preprocess, None, batch_size=BATCH, seed=0, workers=0)
    return (loader.make(0, part, slice(None)) for part in np.array_split(chosen, -(-len(chosen) // BATCH)))


def real_images(split: ImageSplit, preprocess: Preprocess, count: int) -> Tensor:
    """The same images as pixels, (N, C, H, W) uint8."""
    batches = [batch.images for batch in chosen_batches(split, preprocess, count)]
    return to_pixels(torch.cat(batches), preprocess)


def measure(model: nn.Module, split: ImageSplit, preprocess: Preprocess, count: int) -> dict[str, float]:
    """The metrics of the model's family, of the same images."""
    device = next(model.parameters()).device
    return family_of(model).measure(model, (batch.to(device) for batch in chosen_batches(split, preprocess, count)))


def generated_images(model: nn.Module, preprocess: Preprocess, count: int) -> Tensor:
    """The first `count` images of the noise that all evaluations share, (count, C, H, W) uint8."""
    parts = [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
    return torch.cat([to_pixels(make_images(model, SEED, part, Options()), preprocess) for part in parts])


def to_pixels(images: Tensor, preprocess: Preprocess) -> Tensor:
    """From the model's scale to uint8 on the CPU."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (preprocess.mean, preprocess.std))
    return (255 * (images.float().cpu() * std + mean)).round().clamp(0, 255).to(torch.uint8)


def evaluate_loaded(loaded: Loaded, source: str | Given, split: str, settings: CaptionSource) -> dict[str, float]:
    """How far images of a trained model are from those of one split of `source`, by the judge of its training."""
    images = base.pick_split(open_pictures(source, settings).splits, split, source)
    preprocess = dataclasses.replace(loaded.pictures, resize=whole_if_small(images))
    model, device = base.on_device(loaded.model)
    judge = judge_again(loaded.facts, preprocess.channels, device)
    count = loaded.facts.get("samples", GenerationSettings().samples)
    real = judge.features(real_images(images, preprocess, count))
    found = compare(real, judge.features(generated_images(model, preprocess, len(real))))
    return base.counted(loaded, images, len(real)) | found | measure(model, images, preprocess, count)


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: the network that is called to make images."""
    return [method_entry("", loaded.model, "forward", example_inputs(loaded), "images")]
