"""Training super-resolution: any images, or pairs of high and low resolution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.data.patches import PatchBatch, PatchLoader
from orchard.data.resolutions import Resolutions, enlarge, open_resolutions
from orchard.data.settings import CaptionSource
from orchard.errors import OrchardError, UsageError
from orchard.given import Given
from orchard.inference.export import Entry
from orchard.inference.loading import Loaded
from orchard.models import create_model, landmark_of
from orchard.tasks import base
from orchard.tasks.super_resolution import TASK
from orchard.tasks.super_resolution.adversarial_objective import (
    AdversarialSuperResolution,
    is_pair,
    pair_from_generator,
)
from orchard.tasks.super_resolution.metrics import METRICS, compare, least_side
from orchard.tasks.super_resolution.objective import SuperResolution
from orchard.tasks.super_resolution.perceptual import FeatureDifference
from orchard.tasks.super_resolution.settings import Settings
from orchard.tasks.super_resolution.upscaling import Upscaler, network_of
from orchard.training.feed import LoaderFeed
from orchard.training.metric import Metric
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.portable import WEIGHTS, load_exactly, save_portable, write_tensors

UPSAMPLING = "upsample"  # what the names of layers that depend on the scale begin with


class Job(base.Job):
    """A network that enlarges the images of a set after they were made small."""

    task = TASK
    objective: SuperResolution | AdversarialSuperResolution
    unit = "patches"

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the data and build the model. Raises UsageError or OrchardError for all that does not fit."""
        settings: Any = resolved.settings
        torch.manual_seed(settings.seed)  # the fresh weights
        self.model = start_model(settings)
        self.network = network_of(self.model)
        check_crop(self.network.crop, settings)
        self.data = open_resolutions(resolved.source, settings.data, self.network.scales)
        check_sizes(self.data.splits, self.network.scales, settings.patch)
        self.inputs = tuple(landmark_of(settings.model).example(self.model.config, 1, torch.Generator()).values())
        self.resolved = base.settle_precision(resolved, self.model, self.inputs, device)
        self.channels_last = base.wants_channels_last(self.model)
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.objective = make_objective(self.model, settings, device)
        self.fabric = base.make_fabric(self.settings, device)
        self.bicubic: dict[str, Tensor] = {}  # metrics of each image of a split, computed once

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @property
    def metric(self) -> Metric:
        """PSNR falls while a pair learns texture, so that it cannot say which of its evaluations is the best."""
        return replace(self.task.metric, selects=False) if is_pair(self.model) else self.task.metric

    def remarks(self) -> list[str]:
        return [*super().remarks(), *self.objective.remarks]

    @property
    def splits(self) -> Mapping[str, Resolutions]:
        return self.data.splits

    def feed(self) -> LoaderFeed:
        split, s, fabric = self.splits["train"], self.settings, self.fabric
        loader = PatchLoader(
            split, self.network.scales, patch=s.patch, repeats=s.patches_per_image, enlarged=self.network.enlarged,
            flip=s.augmentation.flip, turn=s.augmentation.turn, batch_size=s.batch_size, seed=s.seed,
            workers=s.data.workers, rank=fabric.global_rank, world=fabric.world_size,
        )  # fmt: skip
        return LoaderFeed(loader, s.accumulate, lambda batch, number: self._ready(batch), split.key)

    def _ready(self, batch: PatchBatch) -> PatchBatch:
        return batch.to(self.fabric.device)

    def describe(self) -> str:
        scales = " and ".join(f"x{scale}" for scale in self.network.scales)
        stored = "stored" if self.splits["train"].low else "made"
        return f"{len(self.splits['train']):,} images to learn from, {scales}; low resolution is {stored}"

    def manifest(self) -> dict[str, Any]:
        return {**base.image_manifest(self.data.images), "classes": []}

    def compared(self, model: nn.Module, name: str) -> Tensor:
        """`METRICS` of each image of a split at each scale, (N, scales, 3) float64; each process computes its share."""
        fabric, split = self.fabric, self.splits[name]
        mine = range(len(split) * fabric.global_rank // fabric.world_size,
                     len(split) * (fabric.global_rank + 1) // fabric.world_size)  # fmt: skip
        bf16 = self.settings.precision == "bf16"
        rows = compare_split(model, split, mine, bf16=bf16)
        return torch.cat(base.gather(fabric, rows)) if fabric.world_size > 1 else rows

    def metrics(self, found: Tensor, name: str) -> dict[str, float]:
        """The means over images, beside those of bicubic enlargement."""
        if name not in self.bicubic:
            split = self.splits[name]
            self.bicubic[name] = compare_split(self.model, split, range(len(split)), bicubic=True)
        return summary(found, self.bicubic[name], self.network.scales)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.metrics(self.compared(model, "validation"), "validation")

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(model, *self.inputs)

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        save_portable(run / "model", model, self.portable(model, run.path))

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        found = {name: self.compared(model, name) for name in self.final_splits}
        metrics = {name: self.metrics(rows, name) for name, rows in found.items()}
        if self.fabric.is_global_zero:
            (run / "evaluation").mkdir(exist_ok=True)
            for name, rows in found.items():
                tensors = {"metrics": rows, "bicubic": self.bicubic[name]}
                write_tensors(tensors, run / "evaluation" / f"{name}.safetensors")
        return self.cost(model) | metrics

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.super_resolution.report import write_report

        seen = load_file(run / "evaluation" / f"{self.report_split}.safetensors")
        return write_report(
            run, split=self.splits[self.report_split], model=model, seen=seen, curves=self.objective.curves
        )


def make_objective(
    model: nn.Module, settings: Settings, device: torch.device
) -> SuperResolution | AdversarialSuperResolution:
    """What a model learns from: the difference of pixels, or, where it has a discriminator, what that says as well."""
    if not is_pair(model):
        return SuperResolution(settings.loss, settings.contrastive_weight)
    perceptual, folder = None, settings.adversarial.perceptual
    if folder and settings.adversarial.perceptual_weight:
        perceptual = FeatureDifference(folder, settings.patch * network_of(model).scales[-1], device)
    return AdversarialSuperResolution(settings.adversarial, settings.loss, perceptual)


def start_model(settings: Settings) -> nn.Module:
    """The model to train: fresh, or with the weights of another run or model.

    From one of another scale all is taken but what enlarges, which begins anew (Lim et al. 2017, section 3.2).
    """
    try:
        if not settings.start_from:
            return create_model(settings.model, **settings.architecture)
        if (pair := pair_from_generator(settings.model, settings.start_from, settings.architecture)) is not None:
            return pair
        folder, about, state = base.read_start(settings)
        model = about.build(**settings.architecture)
    except ValueError as error:
        raise UsageError(f"{settings.model} cannot be built so: {error}") from None
    if about.architecture.get("scale") != getattr(model.config, "scale", None):
        fresh = {name: one for name, one in model.state_dict().items() if name.startswith(UPSAMPLING)}
        state = {name: one for name, one in state.items() if not name.startswith(UPSAMPLING)} | fresh
    load_exactly(model, state, str(folder / WEIGHTS))
    return model


def check_crop(crop: int | None, settings: Settings) -> None:
    """UsageError for patches of another size than the network is for, and for a contrastive loss without tokens."""
    if crop is not None and settings.patch != crop:
        raise UsageError(
            f"{settings.model} learns from patches of {crop} pixels, not of {settings.patch}; set patch={crop}"
        )
    if crop is None and settings.contrastive_weight:
        raise UsageError(f"contrastive_weight is for models of patches, such as ipt_nano; {settings.model} has none")


def check_sizes(splits: Mapping[str, Resolutions], scales: tuple[int, ...], patch: int = 0) -> None:
    """OrchardError that names an image too small to cut patches of, or to be measured."""
    scale = max(scales)
    for name, split in splits.items():
        least = patch * scale if name == "train" else least_side(scale)
        for index in range(len(split)):
            height, width = split.size(index)
            if min(height, width) < least:
                what = f"patches of {patch} at scale {scale} need" if name == "train" else "its metrics need"
                advice = f"set patch={min(height, width) // scale} or less, or take it out" if name == "train" else (
                    "take it out"
                )  # fmt: skip
                raise OrchardError(f"{split.key(index)} is {width}x{height} pixels; {what} {least} a side: {advice}")


def compare_split(
    model: nn.Module, split: Resolutions, indices: range, *, bf16: bool = False, bicubic: bool = False
) -> Tensor:
    """`METRICS` of some images of a split, (N, scales, 3) float64, as the model enlarges them, or bicubically."""
    scales, rows = network_of(model).scales, np.empty((len(indices), len(network_of(model).scales), len(METRICS)))
    for column, scale in enumerate(scales):
        upscale = Upscaler(model, scale, bf16=bf16)
        for row, index in enumerate(indices):
            low, high = split.pair(index, scale)
            found = enlarge(low, scale) if bicubic else upscale(low)
            rows[row, column] = compare(found, high, scale)
    return torch.from_numpy(rows)


def summary(found: Tensor, bicubic: Tensor, scales: tuple[int, ...]) -> dict[str, float]:
    """The means over images (and scales, where there are several, with each scale's own PSNR beside them)."""
    table = dict(zip(METRICS, found.mean((0, 1)).tolist(), strict=True))
    table |= {f"bicubic_{name}": value for name, value in zip(METRICS, bicubic.mean((0, 1)).tolist(), strict=True)}
    if len(scales) > 1:
        table |= {f"psnr_x{scale}": float(found[:, n, 0].mean()) for n, scale in enumerate(scales)}
    return table


def evaluate_loaded(loaded: Loaded, source: str | Given, split: str, settings: CaptionSource) -> dict[str, float]:
    """How well a trained model enlarges the images of one split of `source`, beside bicubic enlargement."""
    model, _ = base.on_device(loaded.model)
    scales = network_of(model).scales
    images = base.pick_split(open_resolutions(source, settings, scales).splits, split, source)
    check_sizes({"test": images}, scales)
    every = range(len(images))
    found, bicubic = compare_split(model, images, every), compare_split(model, images, every, bicubic=True)
    return base.counted(loaded, images) | summary(found, bicubic, scales)


class AtScale(nn.Module):
    """A network at one of its scales."""

    def __init__(self, model: nn.Module, scale: int):
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, images: Tensor) -> Tensor:
        return network_of(self.model).upscale(images, self.scale)


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: the network at each of its scales, for images of any size, or of its crops'."""
    network = network_of(loaded.model)
    crop = network.crop

    def draw(count: int, generator: torch.Generator) -> dict[str, Tensor]:
        low, high = network.value_range
        size = (
            (crop, crop) if crop else (16 + 2 * count, 23 + count)
        )  # other sides at every batch, so that none is taken for fixed
        return {"images": low + (high - low) * torch.rand(count, network.channels, *size, generator=generator)}

    several = len(network.scales) > 1
    return [
        Entry(f"x{scale}" if several else "", AtScale(network, scale).eval(), draw, "enlarged", any_size=crop is None)
        for scale in network.scales
    ]
