"""Training super-resolution: any images, or pairs of high and low resolution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.data.patches import PatchBatch, PatchLoader, ReferencePatchLoader
from orchard.data.resolutions import Resolutions
from orchard.errors import UsageError
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
from orchard.tasks.super_resolution.images import check_crop, check_sizes, open_for, refuse_references
from orchard.tasks.super_resolution.measuring import compare_split, summary
from orchard.tasks.super_resolution.objective import SuperResolution
from orchard.tasks.super_resolution.perceptual import FeatureDifference
from orchard.tasks.super_resolution.settings import Settings
from orchard.tasks.super_resolution.textures import read_vgg, texture_training
from orchard.tasks.super_resolution.upscaling import network_of
from orchard.training.feed import LoaderFeed
from orchard.training.metric import Metric
from orchard.training.run import RunFolder
from orchard.training.settings import OptimizerSettings, Resolved
from orchard.weights.portable import WEIGHTS, load_exactly, save_portable, write_tensors

UPSAMPLING = "upsample"  # what the names of layers that depend on the scale begin with


class Job(base.Job):
    """A network that enlarges the images of a set after they were made small."""

    task = TASK
    objective: SuperResolution
    unit = "patches"

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the data and build the model. Raises UsageError or OrchardError for all that does not fit."""
        settings: Any = resolved.settings
        torch.manual_seed(settings.seed)  # the fresh weights
        self.model = start_model(settings)
        self.network = network_of(self.model)
        check_crop(self.network.crop, settings)
        refuse_references(resolved, self.network.takes_reference)
        self.data = open_for(self.network, resolved.source, settings.data)
        check_sizes(self.data.splits, self.network.scales, settings.patch)
        self.inputs = tuple(landmark_of(settings.model).example(self.model.config, 1, torch.Generator()).values())
        self.resolved = base.settle_precision(resolved, self.model, self.inputs, device)
        self.channels_last = base.wants_channels_last(self.model)
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.fabric = base.make_fabric(self.settings, device)
        self.model, self.objective = self._learning(device)
        self.bicubic: dict[str, Tensor] = {}  # metrics of each image of a split, computed once

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @property
    def metric(self) -> Metric:
        return self.task.metric if self.objective.selects else replace(self.task.metric, selects=False)

    def remarks(self) -> list[str]:
        return [*super().remarks(), *self.objective.remarks]

    @property
    def splits(self) -> Mapping[str, Resolutions]:
        return self.data.splits

    def optimizer_settings(self, name: str) -> OptimizerSettings:
        return self.objective.optimizer_settings(name, self.settings.optimizer)

    def feed(self) -> LoaderFeed:
        split, s, fabric = self.splits["train"], self.settings, self.fabric
        kind = ReferencePatchLoader if self.network.takes_reference else PatchLoader
        loader = kind(
            split, self.network.scales, patch=s.patch, repeats=s.patches_per_image, enlarged=self.network.enlarged,
            flip=s.augmentation.flip, turn=s.augmentation.turn, batch_size=s.batch_size, seed=s.seed,
            workers=s.data.workers, rank=fabric.global_rank, world=fabric.world_size,
        )  # fmt: skip
        return LoaderFeed(loader, s.accumulate, lambda batch, number: self._ready(batch), split.key)

    def _ready(self, batch: PatchBatch) -> PatchBatch:
        return batch.to(self.fabric.device)

    def _learning(self, device: torch.device) -> tuple[nn.Module, SuperResolution]:
        """What learns, and from what: the difference of pixels alone, or what a discriminator says as well."""
        s = self.settings
        if s.texture.vgg and not s.start_from:
            read_vgg(s.texture.vgg, cast(Any, self.model).extractor)
        if s.texture.any:
            return texture_training(self.model, s, self.feed().batches_per_epoch, device)
        if not is_pair(self.model):
            return self.model, SuperResolution(s.loss, s.contrastive_weight)
        perceptual, folder = None, s.adversarial.perceptual
        if folder and s.adversarial.perceptual_weight:
            perceptual = FeatureDifference(folder, s.patch * self.network.scales[-1], device)
        return self.model, AdversarialSuperResolution(s.adversarial, s.loss, perceptual)

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
        rows = compare_split(self.objective.network(model), split, mine, bf16=bf16)
        return torch.cat(base.gather(fabric, rows)) if fabric.world_size > 1 else rows

    def metrics(self, found: Tensor, name: str) -> dict[str, float]:
        """The means over images, beside those of bicubic enlargement."""
        if name not in self.bicubic:
            split = self.splits[name]
            network = self.objective.network(self.model)
            self.bicubic[name] = compare_split(network, split, range(len(split)), bicubic=True)
        return summary(found, self.bicubic[name], self.network.scales)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.metrics(self.compared(model, "validation"), "validation")

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(self.objective.network(model), *self.inputs)

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        network = self.objective.network(model)
        save_portable(run / "model", network, self.portable(network, run.path))

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
            run, split=self.splits[self.report_split], model=self.objective.network(model), seen=seen,
            curves=self.objective.curves(),
        )  # fmt: skip


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


class AtScale(nn.Module):
    """A network at one of its scales."""

    def __init__(self, model: nn.Module, scale: int):
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, images: Tensor) -> Tensor:
        return network_of(self.model).upscale(images, self.scale)


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: the network at each of its scales, for images of any size, or of its crops'.
    UsageError for one that takes a reference."""
    network = network_of(loaded.model)
    crop = network.crop
    if network.takes_reference:
        raise UsageError(
            f"{loaded.folder} holds a {loaded.name}, which searches a reference of any size block by block and cannot "
            "be exported; predict and pipeline run it"
        )

    def draw(count: int, generator: torch.Generator) -> dict[str, Tensor]:
        low, high = network.value_range
        # other sides at every batch, so that none is taken for fixed
        size = (crop, crop) if crop else (16 + 2 * count, 23 + count)
        return {"images": low + (high - low) * torch.rand(count, network.channels, *size, generator=generator)}

    several = len(network.scales) > 1
    return [
        Entry(f"x{scale}" if several else "", AtScale(network, scale).eval(), draw, "enlarged", any_size=crop is None)
        for scale in network.scales
    ]
