"""Training super-resolution: any images, or pairs of high and low resolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.data.patches import PatchBatch, PatchLoader, ReferencePatchLoader
from orchard.data.references import open_with_references
from orchard.data.resolutions import ResolutionData, Resolutions, enlarge, open_resolutions
from orchard.data.settings import ReferenceSource
from orchard.errors import OrchardError, UsageError
from orchard.given import Given
from orchard.inference.export import Entry
from orchard.inference.loading import Loaded
from orchard.models import create_model, landmark_of
from orchard.models.restoration.contract import SuperResolver
from orchard.tasks import base
from orchard.tasks.super_resolution import TASK
from orchard.tasks.super_resolution.metrics import METRICS, WHOLE, compare, compare_whole, least_side
from orchard.tasks.super_resolution.objective import SuperResolution
from orchard.tasks.super_resolution.settings import Settings
from orchard.tasks.super_resolution.textures import read_vgg, remarks, texture_training
from orchard.tasks.super_resolution.upscaling import Upscaler, network_of
from orchard.training.feed import LoaderFeed
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
        refuse_references(resolved, self.network.takes_reference)
        self.data = open_for(self.network, resolved.source, settings.data)
        check_sizes(self.data.splits, self.network.scales, settings.patch)
        self.inputs = tuple(landmark_of(settings.model).example(self.model.config, 1, torch.Generator()).values())
        self.resolved = base.settle_precision(resolved, self.model, self.inputs, device)
        self.channels_last = base.wants_channels_last(self.model)
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.objective = SuperResolution(settings.loss)
        self.fabric = base.make_fabric(self.settings, device)
        if settings.texture.vgg and not settings.start_from:
            read_vgg(settings.texture.vgg, cast(Any, self.model).extractor)
        if settings.texture.any:
            steps = self.feed().batches_per_epoch
            self.model, self.objective = texture_training(self.model, settings, steps, device)
        self.bicubic: dict[str, Tensor] = {}  # metrics of each image of a split, computed once

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

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

    def describe(self) -> str:
        scales = " and ".join(f"x{scale}" for scale in self.network.scales)
        stored = "stored" if self.splits["train"].low else "made"
        words = f"{len(self.splits['train']):,} images to learn from, {scales}; low resolution is {stored}"
        return "; ".join((words, *remarks(self.settings.texture)))

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
        network = self.objective.network(model)
        return write_report(run, split=self.splits[self.report_split], model=network, seen=seen)


def start_model(settings: Settings) -> nn.Module:
    """The model to train: fresh, or with the weights of another run or model.

    From one of another scale all is taken but what enlarges, which begins anew (Lim et al. 2017, section 3.2).
    """
    try:
        if not settings.start_from:
            return create_model(settings.model, **settings.architecture)
        folder, about, state = base.read_start(settings)
        model = about.build(**settings.architecture)
    except ValueError as error:
        raise UsageError(f"{settings.model} cannot be built so: {error}") from None
    if about.architecture.get("scale") != getattr(model.config, "scale", None):
        fresh = {name: one for name, one in model.state_dict().items() if name.startswith(UPSAMPLING)}
        state = {name: one for name, one in state.items() if not name.startswith(UPSAMPLING)} | fresh
    load_exactly(model, state, str(folder / WEIGHTS))
    return model


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
            if split.references and min(split.reference_size(index)) < scale:
                raise OrchardError(
                    f"the reference of {split.key(index)} has less than {scale} pixels a side: take it out"
                )


def open_for(network: SuperResolver, source: str | Given, settings: ReferenceSource) -> ResolutionData:
    """Images for the scales of a network, with references where it takes one."""
    if network.takes_reference:
        return open_with_references(source, settings, network.scales)
    return open_resolutions(source, settings, network.scales)


def refuse_references(resolved: Resolved, takes_reference: bool) -> None:
    """UsageError where something is asked of references, and the model takes none."""
    for key, origin in resolved.origins.items():
        if origin == "command" and key.startswith(("data.reference", "texture.")) and not takes_reference:
            raise UsageError(f"setting '{key}': {resolved.settings.model} takes no reference picture; leave it out")


Measure = Callable[[Image.Image, Image.Image, int], tuple[float, ...]]


def compare_split(
    model: nn.Module,
    split: Resolutions,
    indices: range,
    *,
    bf16: bool = False,
    bicubic: bool = False,
    measure: Measure = compare,
    names: tuple[str, ...] = METRICS,
) -> Tensor:
    """Metrics of some images of a split as `measure` names them, (N, scales, metrics) float64, as the model enlarges
    them, or bicubically."""
    scales, rows = network_of(model).scales, np.empty((len(indices), len(network_of(model).scales), len(names)))
    for column, scale in enumerate(scales):
        upscale = Upscaler(model, scale, bf16=bf16)
        for row, index in enumerate(indices):
            low, high = split.pair(index, scale)
            found = enlarge(low, scale) if bicubic else upscale(low, split.reference(index))
            rows[row, column] = measure(found, high, scale)
    return torch.from_numpy(rows)


def summary(
    found: Tensor, bicubic: Tensor, scales: tuple[int, ...], names: tuple[str, ...] = METRICS
) -> dict[str, float]:  # fmt: skip
    """The means over images (and scales, where there are several, with each scale's own PSNR beside them)."""
    table = dict(zip(names, found.mean((0, 1)).tolist(), strict=True))
    table |= {f"bicubic_{name}": value for name, value in zip(names, bicubic.mean((0, 1)).tolist(), strict=True)}
    if len(scales) > 1:
        table |= {f"psnr_x{scale}": float(found[:, n, 0].mean()) for n, scale in enumerate(scales)}
    return table


def evaluate_loaded(loaded: Loaded, source: str | Given, split: str, settings: ReferenceSource) -> dict[str, float]:
    """How well a trained model enlarges the images of one split of `source`, beside bicubic enlargement; of one that
    takes a reference also as its papers measure (`WHOLE`)."""
    model, _ = base.on_device(loaded.model)
    network = network_of(model)
    scales = network.scales
    if settings.reference is not None and not network.takes_reference:
        raise UsageError(f"setting 'data.reference': {loaded.name} takes no reference picture; leave it out")
    images = base.pick_split(open_for(network, source, settings).splits, split, source)
    check_sizes({"test": images}, scales)
    every = range(len(images))
    how: dict[str, Any] = {"measure": compare_whole, "names": (*METRICS, *WHOLE)} if network.takes_reference else {}
    found, bicubic = (compare_split(model, images, every, bicubic=bicubic, **how) for bicubic in (False, True))
    return base.counted(loaded, images) | summary(found, bicubic, scales, how.get("names", METRICS))


class AtScale(nn.Module):
    """A network at one of its scales."""

    def __init__(self, model: nn.Module, scale: int):
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, images: Tensor) -> Tensor:
        return network_of(self.model).upscale(images, self.scale)


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: the network at each of its scales, for images of any size. UsageError for one that
    takes a reference."""
    network = network_of(loaded.model)
    if network.takes_reference:
        raise UsageError(
            f"{loaded.folder} holds a {loaded.name}, which searches a reference of any size block by block and cannot "
            "be exported; predict and pipeline run it"
        )

    def draw(count: int, generator: torch.Generator) -> dict[str, Tensor]:
        low, high = network.value_range
        size = (16 + 2 * count, 23 + count)  # other sides at every batch, so that none is taken for fixed
        return {"images": low + (high - low) * torch.rand(count, network.channels, *size, generator=generator)}

    several = len(network.scales) > 1
    return [
        Entry(f"x{scale}" if several else "", AtScale(network, scale).eval(), draw, "enlarged", any_size=True)
        for scale in network.scales
    ]
