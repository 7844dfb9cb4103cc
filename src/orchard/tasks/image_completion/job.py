"""Training models of pixels on any images, without classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.data.contracts import ImageData, ImageSplit, Preprocess
from orchard.data.loader import Loader
from orchard.data.palette import FILE, Palette, fit_palette, read_palette
from orchard.data.settings import CaptionSource
from orchard.data.unlabelled import open_pictures
from orchard.errors import OrchardError, UsageError
from orchard.given import Given
from orchard.inference.export import Entry, example_inputs, method_entry
from orchard.inference.loading import Loaded
from orchard.models import configuration, create_model, picture_size
from orchard.tasks import base
from orchard.tasks.image_completion import TASK
from orchard.tasks.image_completion.objective import PixelObjective, compute_metrics, measure
from orchard.tasks.image_completion.pipeline import palette_of
from orchard.tasks.image_completion.settings import PaletteSettings, Settings
from orchard.tasks.images import whole_if_small
from orchard.training.feed import LoaderFeed
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.portable import load_exactly, save_portable

OBJECTIVES = {True: "autoregressive", False: "bert"}  # by whether a model is causal
MOST_LOGITS = 2**23  # computed at a time in evaluation
COUNTED = 2000  # training images of which a palette is made, and in which colours are counted
SHOWN = 8  # images of the report


class Job(base.Job):
    """A model of pixels and the palette by which it sees them."""

    task = TASK
    objective: PixelObjective

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the data, make the palette and the model. Raises UsageError or OrchardError for what does not fit."""
        settings = cast(Settings, resolved.settings)
        self.data = open_pictures(resolved.source, settings.data)
        torch.manual_seed(settings.seed)  # the fresh weights
        self.model, self.palette = go_on(settings) if settings.start_from else begin(settings, self.data)
        config: Any = self.model.config
        if settings.objective is None:
            resolved = resolved.choose("objective", OBJECTIVES[config.causal], "chosen: as the model is built")
        self.preprocess = pixels_of(config, self.data.splits["train"])
        self.resolved = base.settle_precision(resolved, self.model, self.sample(), device)
        self.fabric = base.make_fabric(self.settings, device)
        self.objective = PixelObjective(self.model, self.palette.to(device), self.settings.mask_share)
        self.known = self.count_colours()

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @property
    def splits(self) -> Mapping[str, ImageSplit]:
        return self.data.splits

    def sample(self) -> Tensor:
        """The tokens of one image."""
        config: Any = self.model.config
        return torch.zeros(1, config.context, dtype=torch.int64)

    def feed(self) -> LoaderFeed:
        split = self.data.splits["train"]
        loader = base.training_loader(self, split, self.preprocess, self.settings.augmentation)
        return LoaderFeed(
            loader, self.settings.accumulate, lambda batch, number: batch.to(self.fabric.device), split.key
        )

    def describe(self) -> str:
        count = f"{len(self.data.splits['train']):,} images to learn from"
        return f"{count}, as pixels of {len(self.palette)} colours; {self.settings.objective}"

    def manifest(self) -> dict[str, Any]:
        return {**base.image_manifest(self.data), "classes": []}

    def count_colours(self) -> Tensor:
        """How likely each colour is, (K,) float32, by training images and one more pixel of every colour."""
        counts = torch.ones(len(self.palette))
        for images in torch.split(some_images(self.data.splits["train"], self.preprocess, COUNTED).images, 64):
            counts += torch.bincount(self.palette.quantize(images).flatten(), minlength=len(counts))
        return counts / counts.sum()

    def metrics(self, model: nn.Module, split: str) -> dict[str, float]:
        """What `model` makes of a whole split, each process measuring its part of it."""
        fabric = self.fabric
        loader = Loader(
            self.data.splits[split], self.preprocess, None, batch_size=evaluation_rows(model), seed=0,
            workers=self.settings.data.workers, rank=fabric.global_rank, world=fabric.world_size,
        )  # fmt: skip
        with fabric.autocast():
            batches = (batch.to(fabric.device) for batch in loader.batches(0))
            total = measure(self.objective, model, batches, self.known.to(fabric.device))
        if fabric.world_size > 1:
            total = torch.stack(base.gather(fabric, total)).sum(0)
        return compute_metrics(total)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.metrics(model, "validation")

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(model, self.sample())

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        self.palette.save(run / "model")
        facts = {"colour_probabilities": self.known.tolist(), "mask_share": self.settings.mask_share}
        save_portable(
            run / "model", model, self.portable(model, run.path, preprocess=self.preprocess.to_json(), facts=facts)
        )

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        metrics = {name: self.metrics(model, name) for name in self.final_splits}
        return {**self.cost(model), "colours": len(self.palette), **metrics}

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.image_completion.report import write_completion_report

        loaded = Loaded(self.settings.model, model, (), self.preprocess, self.task.name, run / "model", {})
        shown = some_images(self.data.splits[self.report_split], self.preprocess, SHOWN)
        return write_completion_report(run, loaded, self.objective, shown)


def begin(settings: Settings, data: ImageData) -> tuple[nn.Module, Palette]:
    """A fresh model, and the palette: a file's, or one made of the training images."""
    wanted = dict(settings.architecture)
    if settings.image_size:
        wanted["image_size"] = settings.image_size
    causal = settings.objective != "bert"
    if settings.objective and wanted.setdefault("causal", causal) != causal:
        raise UsageError(f"architecture.causal does not go with objective={settings.objective}; leave one of them out")
    try:
        config = configuration(settings.model, **{"in_channels": data.channels, **wanted})
        if settings.palette.file:
            palette = read_palette(Path(settings.palette.file).expanduser())
        else:
            count = settings.palette.colours or config.vocabulary
            train = data.splits["train"]
            palette = fit_palette(some_images(train, pixels_of(config, train), COUNTED).images, count, settings.seed)
        wanted |= {"vocabulary": len(palette), "in_channels": palette.channels}
        return create_model(settings.model, **wanted), palette
    except ValueError as error:
        raise UsageError(f"{settings.model} cannot be built so: {error}") from None


def go_on(settings: Settings) -> tuple[nn.Module, Palette]:
    """The model of another run or folder, with its palette and its objective."""
    if settings.palette != PaletteSettings():
        raise UsageError("a model that goes on keeps the palette it has; leave palette.* out")
    folder, about, state = base.read_start(settings)
    wanted = dict(settings.architecture) | ({"image_size": settings.image_size} if settings.image_size else {})
    try:
        model: Any = about.build(**wanted)
    except ValueError as error:
        raise UsageError(f"{settings.model} cannot be built so: {error}") from None
    learned = OBJECTIVES[model.config.causal]
    if settings.objective not in (None, learned):
        raise UsageError(f"{folder} learned by the objective {learned}; leave out objective={settings.objective}")
    load_exactly(model, state, str(folder))
    return model, read_palette(folder / FILE)


def pixels_of(config: Any, split: ImageSplit) -> Preprocess:
    """Pixels in [-1, 1]; small images are resized as they are, of others the middle is kept."""
    half = (0.5,) * config.in_channels
    return Preprocess(picture_size(config), config.in_channels, half, half, resize=whole_if_small(split))


def evaluation_rows(model: Any) -> int:
    """Images to evaluate side by side: as many as their logits leave room for."""
    return max(1, min(64, MOST_LOGITS // int(model.config.context * model.config.vocabulary)))


def some_images(split: ImageSplit, preprocess: Preprocess, count: int) -> ImageBatch:
    """Up to `count` images at even distances."""
    chosen = np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(np.int64))
    return Loader(split, preprocess, None, batch_size=count, seed=0, workers=0).make(0, chosen, slice(None))


def evaluate_loaded(loaded: Loaded, source: str | Given, split: str, settings: CaptionSource) -> dict[str, float]:
    """What a trained model makes of one split of any images, by its own palette."""
    images = base.pick_split(open_pictures(source, settings).splits, split, source)
    preprocess = dataclasses.replace(loaded.pictures, resize=whole_if_small(images))
    model, device = base.on_device(loaded.model)
    palette = palette_of(loaded).to(device)
    even = [1 / len(palette)] * len(palette)  # of a model that was imported, nobody counted
    known = torch.tensor(loaded.facts.get("colour_probabilities", even), device=device)
    if known.shape != (len(palette),):
        raise OrchardError(f"{loaded.folder}: 'colour_probabilities' are {len(known)}, expected {len(palette)}")
    objective = PixelObjective(model, palette, float(loaded.facts.get("mask_share", 0.15)))
    loader = Loader(images, preprocess, None, batch_size=evaluation_rows(model), seed=0, workers=settings.workers)
    total = measure(objective, model, (batch.to(device) for batch in loader.batches(0)), known)
    return {**base.counted(loaded, images), **compute_metrics(total)}


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: tokens of a whole image to logits."""
    return [method_entry("", loaded.model, "forward", example_inputs(loaded), "logits")]
