"""Training generative models of images: any images, or, for models with classes, images with theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.data.contracts import ImageSplit
from orchard.data.settings import PictureSource
from orchard.data.unlabelled import open_pictures, open_with_classes
from orchard.given import Given
from orchard.inference.export import Entry, example_inputs, method_entry
from orchard.inference.loading import Loaded
from orchard.models import landmark_of
from orchard.nn.spectral_norm import fold_spectral_norms
from orchard.tasks import base
from orchard.tasks.images import start_model, value_range_preprocess, whole_if_small
from orchard.tasks.unconditional_image_generation import TASK, growing
from orchard.tasks.unconditional_image_generation.classes import labels_of, learns_classes, open_for, with_classes
from orchard.tasks.unconditional_image_generation.codes import has_codes
from orchard.tasks.unconditional_image_generation.compared import (
    chosen,
    generated_images,
    measure,
    need_two,
    parts_of,
    real_batches,
    real_images,
    real_sample,
)
from orchard.tasks.unconditional_image_generation.diversity import falls
from orchard.tasks.unconditional_image_generation.judge import ACCURACY, judge_again, make_judge
from orchard.tasks.unconditional_image_generation.learner import COLUMNS, GenerationLearner
from orchard.tasks.unconditional_image_generation.objective import (
    Objective,
    family_named,
    settle_objective,
)
from orchard.tasks.unconditional_image_generation.sample import METRICS, SCORE, Sample, compare, kept_of
from orchard.tasks.unconditional_image_generation.settings import OBJECTIVES, GenerationSettings, Settings
from orchard.training.feed import LoaderFeed
from orchard.training.metric import Metric
from orchard.training.run import RunFolder
from orchard.training.settings import OptimizerSettings, Resolved
from orchard.weights.portable import save_portable, write_tensors


class Job(base.Job):
    """A generative model for a set of images, with the objective that the settings name."""

    task = TASK
    objective: Objective
    model: GenerationLearner

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the data and build the model. Raises UsageError or OrchardError for all that does not fit."""
        settings = cast(Settings, resolved.settings)
        self.data = open_for(settings, resolved.source)
        for name in self.final_splits:
            need_two(name, len(self.data.splits[name]))
        self.classes = self.data.classes if learns_classes(settings.model) else ()
        if self.classes:
            settings = with_classes(settings, self.classes)
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
        self.real: dict[str, Sample] = {}  # by split, computed once
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
        accuracy = [ACCURACY] if self.judge.knows(self.classes) else []
        score = SCORE if self.judge.scores else ()
        return (*METRICS, *score, *accuracy, *self.objective.logged)

    def optimizer_settings(self, name: str) -> OptimizerSettings:
        return self.objective.optimizer_settings(name, self.settings.optimizer)

    def feed(self) -> LoaderFeed:
        split = self.data.splits["train"]
        loader = base.training_loader(self, split, self.preprocess, self.settings.augmentation)
        return LoaderFeed(loader, self.settings.accumulate, lambda batch, number: self._ready(batch), split.key)

    def _ready(self, batch: ImageBatch) -> ImageBatch:
        return batch.to(self.fabric.device, channels_last=self.channels_last)

    def describe(self) -> str:
        classes = f" of {len(self.classes)} classes" if self.classes else ""
        count = f"{len(self.data.splits['train']):,} images{classes} to learn from"
        return f"{count}; {self.settings.objective}: {self.objective.describe()}; judged by {self.judge.words}"

    def manifest(self) -> dict[str, Any]:
        return {**base.image_manifest(self.data), "classes": self.classes}

    def real_sample(self, split: str) -> Sample:
        """Up to `generation.samples` images of a split, at even distances, in the eyes of the judge."""
        if split not in self.real:
            self.real[split] = real_sample(
                self.judge, self.data, self.data.splits[split], split, self.preprocess, self.settings.generation.samples
            )
        return self.real[split]

    def generated(self, model: nn.Module, count: int) -> Iterator[Tensor]:
        """The first `count` images of the noise that all evaluations share, in batches (N, C, H, W) uint8."""
        for numbers in parts_of(count):
            with self.fabric.autocast():
                images = generated_images(model, self.preprocess, numbers)
            yield images

    def judged(self, model: nn.Module, counts: Sequence[int], keep: int) -> tuple[list[Sample], Tensor]:
        """Samples of the first generated images, of these sizes, and the first `keep` images; each is made once."""
        samples, first, done = [Sample(count) for count in counts], torch.empty(0), 0
        for images in self.generated(model, max(counts)):
            features, logits = self.judge.look(images)
            for sample in samples:
                if rest := min(max(sample.total - done, 0), len(images)):
                    sample.add(features[:rest], None if logits is None else logits[:rest])
            if done < keep:
                first = torch.cat([first, images[: keep - done]]) if done else images[:keep]
            done += len(images)
        return samples, first

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """The metrics of as many generated images as there are real ones in the sample of the validation split."""
        real = self.real_sample("validation")
        (fake,), images = self.judged(cast(GenerationLearner, model).model, [real.total], COLUMNS)
        self.model.remember(images)
        found = compare(real, fake)
        said = len(falls(self.coverages))
        self.coverages.append((int(self.model.step), found["coverage"]))
        for line in falls(self.coverages)[said:]:
            base.warn(line)
        return found | self.asked(fake) | self.measured(model, "validation")

    def asked(self, sample: Sample) -> dict[str, float]:
        """The conditional accuracy of generated images, by a judge that knows their classes."""
        return self.judge.accuracy(sample, labels_of(self.model, range(sample.total)), self.classes)

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
        about = self.portable(made, run.path, classes=self.classes, preprocess=self.preprocess.to_json(), facts=facts)
        save_portable(run / "model", made, about)

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        from orchard.tasks.unconditional_image_generation.report import NEAREST, OF_EACH, SHOWN
        from orchard.tasks.unconditional_image_generation.shown import by_class, by_code

        made, keep = cast(GenerationLearner, model).model, max(SHOWN, OF_EACH * len(self.classes))
        reals = {split: self.real_sample(split) for split in self.final_splits}
        samples, images = self.judged(made, [real.total for real in reals.values()], keep)
        fakes = dict(zip(reals, samples, strict=True))
        metrics: dict[str, Any] = {
            split: compare(reals[split], fake) | self.asked(fake) | self.measured(model, split)
            for split, fake in fakes.items()
        }
        real = reals[self.report_split]
        if real.bias:
            base.warn(real.bias)
        training = self.real_sample("train")
        if training.total > real.total:  # as many, so that distances compare
            training = real_sample(
                self.judge, self.data, self.data.splits["train"], "train", self.preprocess, real.total
            )  # fmt: skip
        if self.fabric.is_global_zero:
            (run / "evaluation").mkdir(exist_ok=True)
            seen = {
                "real": real_images(self.data.splits[self.report_split], self.preprocess, SHOWN),
                "generated": images[:SHOWN],
                "nearest": self.nearest(self.judge.features(images[:NEAREST])),
                "real_features": real.few,
                "generated_features": fakes[self.report_split].few,
                "history": torch.stack([row for _, row in self.model.moments()] or [self.model.history[0]]),
                **by_class(images, len(self.classes)),
                **by_code(made, self.preprocess),
                "steps": torch.tensor([step for step, _ in self.model.moments()] or [0]),
            }
            write_tensors({key: value.cpu().contiguous() for key, value in seen.items()}, evaluation_file(run))
        # how far as many real images are apart, which is as near as anything can be expected to come
        return {**self.cost(model), "judge": self.judge.words, **metrics, "training_images": compare(real, training)}

    def nearest(self, features: Tensor) -> Tensor:
        """The training images, of those that are compared, nearest to features (N, D): (N, C, H, W) uint8."""
        known = self.real_sample("train")
        found = torch.cdist(features, known.few).argmin(1)
        split = self.data.splits["train"]
        numbers = chosen(split, self.settings.generation.samples)[kept_of(known.total)[found].numpy()]
        return torch.cat(list(real_batches(split, self.preprocess, numbers)))

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.unconditional_image_generation.report import write_generation_report

        seen = load_file(evaluation_file(run))
        return write_generation_report(run, seen=seen, curves=self.objective.curves, classes=self.classes)


def evaluation_file(run: RunFolder) -> Path:
    return run / "evaluation" / "images.safetensors"


def evaluate_loaded(
    loaded: Loaded,
    source: str | Given,
    split: str,
    settings: PictureSource,
    evaluation: GenerationSettings | None = None,
) -> dict[str, Any]:
    """How far images of a trained model are from those of one split of `source`, by the judge and the number of samples
    of its training, or by those that `evaluation` sets; and of a model with classes which that judge knows, the share
    of its images that are of the class asked for."""
    wanted = evaluation or GenerationSettings()
    labelled = loaded.classes or has_codes(loaded.model)
    opened = (open_with_classes if labelled else open_pictures)(source, settings)  # the splits of its training
    images = base.pick_split(opened.splits, split, source)
    need_two(split, len(images))
    preprocess = dataclasses.replace(loaded.pictures, resize=whole_if_small(images))
    model, device = base.on_device(loaded.model)
    if "judge" in wanted.model_fields_set:
        judge = make_judge(wanted.judge, preprocess.channels, device)
    else:
        judge = judge_again(loaded.facts, preprocess.channels, device)
    count = wanted.samples if "samples" in wanted.model_fields_set else loaded.facts.get("samples", wanted.samples)
    real = real_sample(judge, opened, images, split, preprocess, count)
    if real.bias:
        base.warn(real.bias)
    fake = judge.sample(
        (generated_images(model, preprocess, numbers) for numbers in parts_of(real.total)), real.total
    )  # fmt: skip
    found = compare(real, fake) | judge.accuracy(fake, labels_of(model, range(fake.total)), loaded.classes)
    metrics = base.counted(loaded, images, real.total) | found | measure(model, images, preprocess, count)
    return {**metrics, "about": {"judge": judge.words}}


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: the network that is called to make images."""
    return [method_entry("", fold_spectral_norms(loaded.model), "forward", example_inputs(loaded), "images")]
