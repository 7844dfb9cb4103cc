"""Training image to image: pairs of pictures, or two sets of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.data.contracts import Preprocess
from orchard.data.settings import Source
from orchard.data.two_sides.alone import open_alone
from orchard.data.two_sides.contracts import TwoSides, TwoSidesData
from orchard.data.two_sides.loader import SidesBatch, SidesLoader
from orchard.data.two_sides.sources import open_pairs, open_unpaired
from orchard.errors import UsageError
from orchard.given import Given
from orchard.inference.export import Entry
from orchard.inference.loading import Loaded
from orchard.models import configuration, landmark_of
from orchard.tasks import base
from orchard.tasks.image_to_image import TASK
from orchard.tasks.image_to_image.alone import MadeLoader, Translates, alone, made_looks, measure_alone
from orchard.tasks.image_to_image.measuring import (
    WAYS,
    Looks,
    check_counts,
    measure_pairs,
    measure_sides,
    summary_of_pairs,
)
from orchard.tasks.image_to_image.objective import Family, Objective, family_of
from orchard.tasks.image_to_image.settings import Settings
from orchard.tasks.image_to_image.translating import choose_direction, network_of, translated
from orchard.tasks.images import in_value_range
from orchard.tasks.super_resolution.metrics import WINDOW
from orchard.tasks.unconditional_image_generation.learner import COLUMNS, GenerationLearner
from orchard.training.feed import LoaderFeed
from orchard.training.metric import Metric
from orchard.training.run import RunFolder
from orchard.training.settings import OptimizerSettings, Resolved
from orchard.weights.portable import save_portable, write_tensors


class Job(base.Job):
    """A translator for a set of pictures of two sides."""

    task = TASK
    objective: Objective
    model: GenerationLearner

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the data and build the model. Raises UsageError or OrchardError for all that does not fit."""
        settings = cast(Settings, resolved.settings)
        with torch.device("meta"):
            self.family = family_of(landmark_of(settings.model).model(configuration(settings.model)))
        self.data = open_sides(resolved.source, settings.data, self.family)
        if not self.family.PAIRED:
            check_counts({name: self.data.splits[name] for name in self.final_splits})
        torch.manual_seed(settings.seed)  # the fresh weights
        model = start_model(settings, self.data)
        self.direction = choose_direction(model, settings.direction, settings.direction)
        if not self.family.PAIRED and resolved.origins.get("direction") == "command":
            raise UsageError("setting 'direction': this model learns both; leave it out")
        if alone(self.family) and settings.direction != self.direction:
            raise UsageError("setting 'direction': what is given is made of the pictures; leave it out")
        least = getattr(model, "least_batch", 1)
        if settings.batch_size // settings.accumulate < least:
            raise UsageError(f"{settings.model} has norms over single pixels, and needs {least} pictures at a time")
        self.looks = looks_of(self.family, model, settings.direction, settings.augmentation.enlarge)
        self.inputs = tuple(landmark_of(settings.model).example(model.config, 1, torch.Generator()).values())
        self.resolved = base.settle_precision(resolved, model, self.inputs, device)
        self.objective = self.family.make_objective(settings, model)
        self.channels_last = base.wants_channels_last(model)
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = self.family.make_learner(model, settings)
        if family := alone(self.family):
            family.prepare(self.model, self.splits["train"], self.looks)
        self.fabric = base.make_fabric(self.settings, device)
        self.changed: dict[str, dict[str, Tensor]] = {}  # what there and back changes in each picture, by split

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    def optimizer_settings(self, name: str) -> OptimizerSettings:
        """The common ones; an objective may give an optimizer a share of the learning rate."""
        common = super().optimizer_settings(name)
        share = getattr(self.objective, "lr_shares", {}).get(name, 1.0)
        return common if share == 1.0 else common.model_copy(update={"lr": common.lr * share})

    @property
    def splits(self) -> Mapping[str, TwoSides]:
        return self.data.splits

    @property
    def metric(self) -> Metric:
        return TASK.metric_named(self.family.METRIC)

    def remarks(self) -> list[str]:
        size = network_of(self.model.model).config.image_size
        train = self.splits["train"]
        small = sum(int((train.side(side).sizes.min(1) < size).sum()) for side in ("B" if alone(self.family) else "AB"))
        lines = [f"{small} training pictures have less than {size} pixels a side, and are enlarged"] if small else []
        return [*self.data.remarks, *lines]

    def feed(self) -> LoaderFeed:
        split, s, fabric = self.splits["train"], self.settings, self.fabric
        looks = (self.looks.a, self.looks.b)
        varied: dict[str, Any] = dict(
            enlarge=s.augmentation.enlarge, flip=s.augmentation.flip, batch_size=s.batch_size, seed=s.seed,
            workers=s.data.workers, rank=fabric.global_rank, world=fabric.world_size,
        )  # fmt: skip
        family = alone(self.family)
        loader = (
            MadeLoader(split, looks, family.make_given(self.model.model, s), **varied)
            if family else SidesLoader(split, looks, **varied)
        )  # fmt: skip
        return LoaderFeed(loader, s.accumulate, lambda batch, number: self._ready(batch), split.key)

    def _ready(self, batch: SidesBatch) -> SidesBatch:
        return batch.to(self.fabric.device, channels_last=self.channels_last)

    def describe(self) -> str:
        train = self.splits["train"]
        pairs = "pictures" if alone(self.family) else "pairs"
        count = f"{len(train):,} {pairs}" if train.paired else f"{len(train.a):,} and {len(train.b):,} pictures"
        return f"{count} to learn from; {self.objective.describe()}"

    def manifest(self) -> dict[str, Any]:
        data = self.data
        counts = {name: len(split) for name, split in data.splits.items()}
        table = base.data_manifest("images", data.source, data.format, counts, data.fingerprint, data.problems)
        return {**table, "classes": []}

    def measured(self, model: nn.Module, name: str) -> tuple[dict[str, float], dict[str, Tensor]]:
        """The metrics of a split, and those of each picture."""
        split = self.splits[name]
        with self.fabric.autocast():
            return measure(self.family, model, split, self.looks, self.settings.direction)

    def shown(self) -> list[tuple[str, int]]:
        """Which pictures of the validation split the history follows: the direction and the index of each."""
        split, ways = self.splits["validation"], (self.direction,) if self.family.PAIRED else WAYS
        each = COLUMNS // len(ways)
        side = self.settings.direction[0] if self.family.PAIRED else ""
        return [(way, n) for way in ways for n in range(min(each, len(split.side(side or way[0]))))]

    def shown_pictures(self) -> list[Tensor]:
        """These pictures, (1, C, S, S) uint8 each."""
        split = self.splits["validation"]
        paired = self.settings.direction[0] if self.family.PAIRED else ""
        return [self.looks.pictures(split, paired or way[0], np.array([n])) for way, n in self.shown()]

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        made = cast(GenerationLearner, model).model
        pictures = zip(self.shown(), self.shown_pictures(), strict=True)
        self.model.remember(torch.cat([translated(made, one, cast(Any, way)) for (way, _), one in pictures]))
        return self.measured(made, "validation")[0]

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(cast(GenerationLearner, model).model, *self.inputs)

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        made = cast(GenerationLearner, model).model
        given = self.looks.b if self.family.PAIRED and self.settings.direction == "BtoA" else self.looks.a
        facts: dict[str, Any] = {"direction": self.settings.direction} if self.family.PAIRED else {}
        if alone(self.family):
            side = network_of(made).config.image_size * self.settings.augmentation.enlarge
            given = self.looks.a if self.looks.a.channels == 1 else self.looks.b
            facts = {"direction": self.direction, "side": round(side)}
        save_portable(run / "model", made, self.portable(made, run.path, preprocess=given.to_json(), facts=facts))

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        made = cast(GenerationLearner, model).model
        metrics: dict[str, Any] = {}
        each: dict[str, Tensor] = {}
        for name in self.final_splits:
            metrics[name], each = self.measured(made, name)  # the last is the report's
        if self.fabric.is_global_zero:
            (run / "evaluation").mkdir(exist_ok=True)
            moments = self.model.moments()
            seen = {
                **each,
                "given": torch.cat(self.shown_pictures()),
                "history": torch.stack([row for _, row in moments] or [self.model.history[0]]),
                "steps": torch.tensor([step for step, _ in moments] or [0]),
            }
            write_tensors({key: value.cpu().contiguous() for key, value in seen.items()}, evaluation_file(run))
        return {**self.cost(model), **metrics}

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.image_to_image.report import write_report

        return write_report(
            run, split=self.splits[self.report_split], model=cast(GenerationLearner, model).model, looks=self.looks,
            direction=self.settings.direction, seen=load_file(evaluation_file(run)), curves=self.objective.curves,
            family=alone(self.family),
        )  # fmt: skip


def evaluation_file(run: RunFolder) -> Path:
    return run / "evaluation" / "images.safetensors"


def open_sides(source: str | Given, settings: Source, family: Family) -> TwoSidesData:
    """The data as a family learns them."""
    assert isinstance(source, str), "the kinds of data take no Python objects"
    if own := alone(family):
        return open_alone(source, settings, coloured=own.COLOURED)
    return open_pairs(source, settings) if family.PAIRED else open_unpaired(source, settings)


def start_model(settings: Settings, data: TwoSidesData) -> Any:
    """The model to train: fresh, for the channels of the data, or with the weights of another run or model."""
    wanted = dict(settings.architecture)
    if settings.image_size:
        wanted["image_size"] = settings.image_size
    given, made = data.channels if settings.direction == "AtoB" else data.channels[::-1]
    fields = vars(configuration(settings.model))
    fresh = {"in_channels": given, "out_channels": made}
    if "out_channels" not in fields:  # of both sides
        fresh = {"in_channels": max(given, made)} if "in_channels" in fields else {}
    model = base.start_network(settings, wanted, fresh)
    if network_of(model).config.image_size < WINDOW:
        raise UsageError(f"image_size is {network_of(model).config.image_size}; metrics need {WINDOW} pixels a side")
    return model


def looks_of(family: Family, model: nn.Module, direction: str, enlarge: float) -> Looks:
    """How pictures of either side come to a model: the middle, its shorter side the model's. What is given to a model
    of one direction is its A. What learns from pictures alone is judged at the scale of its training, which is
    `enlarge` times that."""
    if own := alone(family):
        return made_looks(own, model, enlarge)
    network = network_of(model)
    size = network.config.image_size
    sides = ("A", "B") if direction == "AtoB" else ("B", "A")
    a, b = (
        in_value_range(Preprocess((size, size), network.channels(side), (), (), interpolation="bicubic"), model)
        for side in sides
    )
    return Looks(a, b)


def measure(
    family: Family, model: nn.Module, split: TwoSides, looks: Looks, direction: str
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The metrics of a split, and those of each picture: `pairs` (N, 3), or `A` and `B` (N,)."""
    if own := alone(family):
        return measure_alone(own, model, split, looks)
    if not family.PAIRED:
        return measure_sides(model, split, looks)
    rows = measure_pairs(model, split, looks, direction, range(len(split)))
    return summary_of_pairs(rows), {"pairs": rows}


def evaluate_loaded(loaded: Loaded, source: str | Given, split: str, settings: Source) -> dict[str, float]:
    """How well a trained model translates the pictures of one split of `source`."""
    model, _ = base.on_device(loaded.model)
    family, direction = family_of(model), loaded.facts.get("direction", "AtoB")
    pictures = base.pick_split(open_sides(source, settings, family).splits, split, source)
    if not family.PAIRED:
        check_counts({split: pictures})
    size = network_of(model).config.image_size
    looks = looks_of(family, model, direction, loaded.facts.get("side", size) / size)
    found, _ = measure(family, model, pictures, looks, direction)
    return base.counted(loaded, pictures) | found


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: each direction's generator, for images of the model's size."""
    network: Any = network_of(loaded.model)
    size = network.config.image_size

    def entry(name: str, module: nn.Module) -> Entry:
        def draw(count: int, generator: torch.Generator) -> dict[str, Tensor]:
            return {"images": 2 * torch.rand(count, network.channels("A"), size, size, generator=generator) - 1}

        return Entry(name, module, draw, "translated")

    if alone(family_of(loaded.model)):
        return [entry("", Translates(loaded.model))]
    if len(network.directions) == 1:
        return [entry("", network.generator)]
    return [entry(direction, network.generators[direction]) for direction in network.directions]
