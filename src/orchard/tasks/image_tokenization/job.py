"""Training image tokenizers: any pictures, without classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.data.contracts import ImageSplit
from orchard.data.loader import Loader
from orchard.data.settings import CaptionSource
from orchard.data.unlabelled import open_pictures
from orchard.given import Given
from orchard.inference.export import Draw, Entry, image_inputs, method_entry
from orchard.inference.loading import Loaded
from orchard.models import picture_size
from orchard.tasks import base
from orchard.tasks.image_tokenization import TASK
from orchard.tasks.image_tokenization.objective import ImageTokenization, tokenizer_training
from orchard.tasks.image_tokenization.settings import Settings, TokenizationSettings
from orchard.tasks.images import start_model, value_range_preprocess, whole_if_small
from orchard.training.feed import LoaderFeed
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.portable import fingerprint_of, save_portable, write_tensors

BATCH = 64  # pictures at a time where nothing is learned, at least


class Job(base.Job):
    """A tokenizer for a set of images, with a discriminator and a perceptual loss where the settings want them."""

    task = TASK
    objective: ImageTokenization

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the data and build the model. Raises UsageError or OrchardError for all that does not fit."""
        settings: Any = resolved.settings
        self.data = open_pictures(resolved.source, settings.data)
        torch.manual_seed(settings.seed)  # the fresh weights
        tokenizer = start_model(settings, self.data)
        config: Any = tokenizer.config
        self.preprocess = value_range_preprocess(tokenizer, self.data)
        self.shape = (1, config.in_channels, *picture_size(config))
        self.resolved = base.settle_precision(resolved, tokenizer, self.shape, device)
        self.model = tokenizer_training(tokenizer, settings.tokenization)
        self.channels_last = base.wants_channels_last(tokenizer)
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.objective = ImageTokenization(settings.tokenization)
        self.fabric = base.make_fabric(self.settings, device)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of codes."""
        stride = cast(int, self.tokenizer(self.model).stride)
        return self.preprocess.size[0] // stride, self.preprocess.size[1] // stride

    @staticmethod
    def tokenizer(model: nn.Module) -> nn.Module:
        """The tokenizer in what is trained."""
        return cast(nn.Module, model.tokenizer)

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @property
    def splits(self) -> Mapping[str, ImageSplit]:
        return self.data.splits

    def feed(self) -> LoaderFeed:
        split = self.data.splits["train"]
        loader = base.training_loader(self, split, self.preprocess, self.settings.augmentation)
        return LoaderFeed(loader, self.settings.accumulate, lambda batch, number: self._ready(batch), split.key)

    def _ready(self, batch: ImageBatch) -> ImageBatch:
        return batch.to(self.fabric.device, channels_last=self.channels_last)

    def describe(self) -> str:
        rows, columns = self.grid
        pictures = f"{len(self.data.splits['train']):,} pictures to learn from"
        codes = f"{rows} x {columns} codes of {self.model.config.codes:,} each"  # type: ignore[union-attr]
        return "; ".join((f"{pictures}, {codes}", *self.objective.remarks))

    def manifest(self) -> dict[str, Any]:
        return {**base.image_manifest(self.data), "classes": []}

    def batches(self, split: str) -> Iterator[ImageBatch]:
        """A whole split as evaluation sees it, on the device. Every process judges all of it: the sums are one."""
        loader = Loader(
            self.data.splits[split], self.preprocess, None, batch_size=max(self.settings.batch_size, BATCH),
            seed=self.settings.seed, workers=self.settings.data.workers,
        )  # fmt: skip
        return (self._ready(batch) for batch in loader.batches(0))

    def metrics(self, model: nn.Module, split: str) -> dict[str, float]:
        with self.fabric.autocast():
            return self.objective.compute_metrics(model, self.batches(split))

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.metrics(model, "validation")

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(self.tokenizer(model), self.shape)

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        tokenizer = self.tokenizer(model)
        codes = {"codes": self.model.config.codes, "grid": self.grid, "fingerprint": fingerprint_of(tokenizer)}  # type: ignore[union-attr]
        about = self.portable(tokenizer, run.path, preprocess=self.preprocess.to_json(), facts=codes)
        save_portable(run / "model", tokenizer, about)

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        tokenizer = self.tokenizer(model)
        metrics = {name: self.metrics(model, name) for name in self.final_splits}
        with self.fabric.autocast():
            seen = look_at_split(tokenizer, self.batches(self.report_split))
        if self.fabric.is_global_zero:
            (run / "evaluation").mkdir(exist_ok=True)
            write_tensors(seen, run / "evaluation" / f"{self.report_split}.safetensors")
        return {
            "parameters": sum(
                parameter.numel() for parameter in tokenizer.parameters()
            ),  # a discriminator stays behind
            **self.cost(model),
            **metrics,
        }

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.image_tokenization.report import write_tokenizer_report

        return write_tokenizer_report(
            run, split=self.data.splits[self.report_split], preprocess=self.preprocess, tokenizer=self.tokenizer(model),
            seen=load_file(run / "evaluation" / f"{self.report_split}.safetensors"),
            discriminator=bool(self.settings.tokenization.discriminator_weight),
        )  # fmt: skip


@torch.no_grad()
def look_at_split(tokenizer: nn.Module, batches: Iterator[ImageBatch]) -> dict[str, Tensor]:
    """What the report needs of a split: `error` (N,) mean squared difference of each picture, `counts` (codes,)."""
    low, high = cast(tuple[float, float], tokenizer.value_range)
    config: Any = tokenizer.config
    counts, errors = torch.zeros(config.codes, dtype=torch.int64), []
    for batch in batches:
        found = tokenizer(batch.images)
        drawn = found.images.float().clamp(low, high)
        errors.append((drawn - batch.images).square().mean((1, 2, 3)).cpu())
        counts += torch.bincount(found.codes.flatten().cpu(), minlength=config.codes)
    return {"error": torch.cat(errors), "counts": counts}


def evaluate_loaded(loaded: Loaded, source: str | Given, split: str, settings: CaptionSource) -> dict[str, float]:
    """How well a trained tokenizer draws the pictures of one split of `source` again."""
    images = base.pick_split(open_pictures(source, settings).splits, split, source)
    preprocess = dataclasses.replace(loaded.pictures, resize=whole_if_small(images))
    loader = Loader(images, preprocess, None, batch_size=BATCH, seed=0, workers=settings.workers)
    model, device = base.on_device(loaded.model)
    metrics = ImageTokenization(TokenizationSettings()).compute_metrics(
        model, (batch.to(device) for batch in loader.batches(0))
    )
    return {**base.counted(loaded, images), **metrics}


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: one file that encodes, one that decodes."""
    model: Any = loaded.model

    def codes(count: int, generator: torch.Generator) -> dict[str, Tensor]:
        height, width = (side // model.stride for side in loaded.pictures.size)
        return {"codes": torch.randint(model.config.codes, (count, height, width), generator=generator)}

    draw: Draw = codes
    return [
        method_entry("encode", model, "encode", image_inputs(loaded), "codes", images=True),
        method_entry("decode", model, "decode", draw, "images"),
    ]
