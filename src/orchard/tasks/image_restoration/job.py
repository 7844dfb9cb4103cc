"""Training image restoration: any images, which are degraded by noise or rain, or pairs of degraded and clean ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.data.patches import PatchBatch, PatchLoader
from orchard.data.resolutions import Resolutions, open_resolutions
from orchard.data.settings import CaptionSource
from orchard.errors import UsageError
from orchard.given import Given
from orchard.inference.export import Entry
from orchard.inference.loading import Loaded
from orchard.models import landmark_of
from orchard.tasks import base
from orchard.tasks.image_restoration import TASK
from orchard.tasks.image_restoration.degradation import Degradation, Noise, read_degradation
from orchard.tasks.image_restoration.metrics import is_stored, measure, summary
from orchard.tasks.image_restoration.objective import Restoration
from orchard.tasks.image_restoration.restoring import network_of
from orchard.tasks.image_restoration.settings import EvaluationSettings, Settings
from orchard.tasks.super_resolution.images import check_patch, check_sizes
from orchard.training.feed import LoaderFeed
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.portable import save_portable, write_tensors

SAME = (1,)  # the scale of pairs of one size


class Job(base.Job):
    """A network that restores the images of a set after they were degraded."""

    task = TASK
    objective: Restoration
    unit = "patches"

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the data and build the model. Raises UsageError or OrchardError for all that does not fit."""
        settings: Any = resolved.settings
        torch.manual_seed(settings.seed)  # the fresh weights
        self.model = base.start_network(settings, settings.architecture, {})
        check_patch(network_of(self.model).crop, settings.model, settings.patch)
        self.data = open_resolutions(resolved.source, settings.data, SAME)
        check_sizes(self.data.splits, SAME, settings.patch)
        self.degradation = degradation_of(self.model, self.splits["train"], settings.degradation)
        self.inputs = tuple(landmark_of(settings.model).example(self.model.config, 1, torch.Generator()).values())
        self.resolved = base.settle_precision(resolved, self.model, self.inputs, device)
        self.channels_last = base.wants_channels_last(self.model)
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.objective = Restoration(settings.loss, self.degradation)
        self.fabric = base.make_fabric(self.settings, device)
        self.degraded: dict[str, Tensor] = {}  # metrics of each image of a split as it is given, computed once

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @property
    def splits(self) -> Mapping[str, Resolutions]:
        return self.data.splits

    def feed(self) -> LoaderFeed:
        split, s, fabric = self.splits["train"], self.settings, self.fabric
        loader = PatchLoader(
            split, SAME, patch=s.patch, repeats=s.patches_per_image, enlarged=False, flip=s.augmentation.flip,
            turn=s.augmentation.turn, batch_size=s.batch_size, seed=s.seed, workers=s.data.workers,
            rank=fabric.global_rank, world=fabric.world_size,
        )  # fmt: skip
        return LoaderFeed(loader, s.accumulate, lambda batch, number: self._ready(batch), split.key)

    def _ready(self, batch: PatchBatch) -> PatchBatch:
        return batch.to(self.fabric.device)

    def describe(self) -> str:
        how = self.settings.degradation if self.degradation else "stored in pairs"
        return f"{len(self.splits['train']):,} images to learn from; degraded ones are {how}"

    def manifest(self) -> dict[str, Any]:
        return {**base.image_manifest(self.data.images), "classes": []}

    def metrics(self, model: nn.Module, name: str) -> tuple[Tensor, dict[str, float]]:
        """Metrics of each image of a split at each level, each process computing its share; and their means."""
        fabric, split = self.fabric, self.splits[name]
        every = range(len(split))
        mine = every[len(split) * fabric.global_rank // fabric.world_size :
                     len(split) * (fabric.global_rank + 1) // fabric.world_size]  # fmt: skip
        rows = measure(model, split, mine, self.degradation, bf16=self.settings.precision == "bf16")
        rows = torch.cat(base.gather(fabric, rows)) if fabric.world_size > 1 else rows
        if name not in self.degraded:
            self.degraded[name] = measure(model, split, every, self.degradation, degraded=True)
        return rows, summary(rows, self.degraded[name], self.degradation)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.metrics(model, "validation")[1]

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(model, *self.inputs)

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        facts = {"degradation": self.settings.degradation} if self.degradation else {}
        save_portable(run / "model", model, self.portable(model, run.path, facts=facts))

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        found = {name: self.metrics(model, name) for name in self.final_splits}
        if self.fabric.is_global_zero:
            (run / "evaluation").mkdir(exist_ok=True)
            for name, (rows, _) in found.items():
                tensors = {"metrics": rows, "degraded": self.degraded[name]}
                write_tensors(tensors, run / "evaluation" / f"{name}.safetensors")
        return self.cost(model) | {name: means for name, (_, means) in found.items()}

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.image_restoration.report import write_report

        seen = load_file(run / "evaluation" / f"{self.report_split}.safetensors")
        return write_report(
            run, split=self.splits[self.report_split], model=model, degradation=self.degradation, seen=seen
        )


def degradation_of(model: nn.Module, split: Resolutions, name: str) -> Degradation | None:
    """What degrades the images of a split; nothing where they come in pairs. A network with a noise map learns from
    noise alone."""
    told = network_of(model).noise_map
    if not is_stored(split):
        degradation = read_degradation(name)
        if told and not isinstance(degradation, Noise):
            raise UsageError(f"{name} has no standard deviation, which this model must be told; use noise:FROM-TO")
        return degradation
    if told:
        raise UsageError("the data are pairs, which do not say how strong their noise is; this model must be told")
    return None


def evaluate_loaded(
    loaded: Loaded, source: str | Given, split: str, settings: CaptionSource, evaluation: EvaluationSettings
) -> dict[str, float]:
    """How well a trained model restores the images of one split of `source`."""
    model, _ = base.on_device(loaded.model)
    images = base.pick_split(open_resolutions(source, settings, SAME).splits, split, source)
    check_sizes({"test": images}, SAME)
    name = evaluation.degradation or loaded.facts.get("degradation")
    if name is None and not is_stored(images):
        raise UsageError(
            f"{loaded.folder} does not say what noise or rain it was trained for; name some with "
            "--set evaluation.degradation=noise:25"
        )
    degradation = degradation_of(model, images, str(name))
    every = range(len(images))
    found, degraded = (measure(model, images, every, degradation, degraded=given) for given in (False, True))
    return base.counted(loaded, images) | summary(found, degraded, degradation)


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: the network, for images of any size, or of its crops'; a noise map is the last
    channel."""
    network = network_of(loaded.model)
    crop = network.crop

    def draw(count: int, generator: torch.Generator) -> dict[str, Tensor]:
        low, high = network.value_range
        # other sides at every batch, so that none is taken for fixed
        size = (crop, crop) if crop else (16 + 2 * count, 23 + count)
        shape = (count, network.channels + network.noise_map, *size)
        return {"images": low + (high - low) * torch.rand(shape, generator=generator)}

    return [Entry("", loaded.model, draw, "clean", any_size=crop is None)]
