"""Training networks that segment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call

from orchard.data.masks.contracts import Relabelled
from orchard.data.masks.loader import MaskLoader
from orchard.data.masks.sources import open_masks
from orchard.data.settings import Source
from orchard.data.sizing import Sizing
from orchard.errors import OrchardError, UsageError, first_line
from orchard.inference.export import Entry, example_inputs
from orchard.inference.loading import Loaded
from orchard.models.segmentation.contract import segment
from orchard.tasks import base
from orchard.tasks.semantic_segmentation import TASK
from orchard.tasks.semantic_segmentation.objective import (
    Predictions,
    SemanticSegmentation,
    balanced_weights,
    predict_split,
)
from orchard.tasks.semantic_segmentation.settings import Settings
from orchard.tasks.trunks import TrunkJob
from orchard.training.feed import LoaderFeed
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.portable import save_portable, write_tensors


class Job(TrunkJob):
    """A network that segments images into the classes of a set of masks."""

    task = TASK
    objective: SemanticSegmentation

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the data and build the model. Raises UsageError or OrchardError for all that does not fit."""
        settings: Any = resolved.settings
        self.start(resolved, open_masks(settings.data.source, settings.data), device)
        self.sizing = start_sizing(settings, self.size)
        self.crop = settings.crop_size or self.size
        check_crop(self.model, self.shape[1], self.crop)
        wanted = settings.segmentation
        balanced = wanted.class_weights == "balanced"
        weights = balanced_weights(self.data.splits["train"].pixels().tolist()) if balanced else None
        self.objective = SemanticSegmentation(wanted.dice_weight, weights)

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    def feed(self) -> LoaderFeed:
        split, s, fabric = self.data.splits["train"], self.settings, self.fabric
        loader = MaskLoader(
            split, self.preprocess, self.sizing, self.crop, s.augmentation, batch_size=s.batch_size, seed=s.seed,
            workers=self.workers, rank=fabric.global_rank, world=fabric.world_size,
        )  # fmt: skip
        return LoaderFeed(loader, s.accumulate, lambda batch, number: self.ready(batch), split.key)

    def describe(self) -> str:
        return f"{len(self.data.splits['train']):,} images to learn from, {len(self.data.classes)} classes of pixels"

    def predictions(self, model: nn.Module, split: str, *, boundaries: bool) -> Predictions:
        """How right `model` is on a split, each process its piece of it, one image at a time."""
        fabric = self.fabric
        loader = MaskLoader(
            self.data.splits[split], self.preprocess, self.sizing, self.crop, None, workers=self.workers,
            rank=fabric.global_rank, world=fabric.world_size,
        )  # fmt: skip
        with fabric.autocast():
            batches = map(self.ready, loader.batches(0))
            mine = predict_split(model, batches, self.objective, boundaries=boundaries)
        return Predictions.merge(base.gather(fabric, mine)) if fabric.world_size > 1 else mine

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.predictions(model, "validation", boundaries=False).figures()

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        about = self.portable(
            model, run.path, classes=self.data.classes, preprocess=self.preprocess.to_json(),
            facts={"shorter_side": self.sizing.shorter, "colours": [list(one) for one in self.data.colours]},
        )  # fmt: skip
        save_portable(run / "model", model, about)

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        predictions = {name: self.predictions(model, name, boundaries=True) for name in self.final_splits}
        if self.fabric.is_global_zero:
            (run / "evaluation").mkdir(exist_ok=True)
            for name, found in predictions.items():
                write_tensors(dict(vars(found)), run / "evaluation" / f"{name}.safetensors")
        metrics = {name: found.figures(self.data.classes) for name, found in predictions.items()}
        return self.cost(model) | metrics

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.semantic_segmentation.report import write_report

        predictions = Predictions(**load_file(run / "evaluation" / f"{self.report_split}.safetensors"))
        loader = MaskLoader(self.data.splits[self.report_split], self.preprocess, self.sizing, self.crop, None)
        return write_report(run, data=self.data, predictions=predictions, model=model, loader=loader)


def check_crop(model: nn.Module, channels: int, crop: tuple[int, int]) -> None:
    """UsageError for crops of a size that the model does not take; nothing is computed to find out."""
    whole = Probabilities(model)
    state = {name: tensor.to("meta") for name, tensor in whole.state_dict().items()}
    try:
        functional_call(whole, state, (torch.empty(2, channels, *crop, device="meta"),))
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"setting 'crop_size': {first_line(error)}") from None


def start_sizing(settings: Settings, size: tuple[int, int]) -> Sizing:
    """How large images are: as the settings say, else as the model that is fine-tuned, else as the variant."""
    if settings.shorter_side is not None:
        return Sizing(settings.shorter_side or None, None)
    return sizing_of(base.read_start(settings)[1].facts if settings.start_from else {}, size)


def sizing_of(facts: Mapping[str, Any], size: tuple[int, int]) -> Sizing:
    """What a model's folder says of the size of images; without a word it is the variant's."""
    return Sizing(facts.get("shorter_side", min(size)), None)


def evaluate_loaded(loaded: Loaded, source: str, split: str, settings: Source) -> dict[str, float]:
    """Metrics on images with masks, whose classes must be among the model's by name."""
    data = open_masks(source, settings)
    images = base.pick_split(data.splits, split, source)
    strange = [name for name in data.classes if name not in loaded.classes]
    if strange:
        raise OrchardError(
            f"the model of {loaded.folder} does not know the class '{strange[0]}' of {source}; it was not trained on it"
        )
    asked = base.counted(loaded, images)
    images = Relabelled(images, [loaded.classes.index(name) for name in data.classes])
    size = loaded.pictures.size
    sizing = sizing_of(loaded.facts, size)
    loader = MaskLoader(images, loaded.pictures, sizing, size, None, workers=settings.workers or 0)
    model, device = base.on_device(loaded.model)
    batches = (batch.to(device) for batch in loader.batches(0))
    found = predict_split(model, batches, SemanticSegmentation(), boundaries=True)
    return {**asked, **found.figures(loaded.classes)}


class Probabilities(nn.Module):
    """A network with the probabilities of the classes as its answer, (B, K, H, W)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return segment(self.model, images).softmax(1)


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of. Images have the size of the variant."""
    return [Entry("", Probabilities(loaded.model).eval(), example_inputs(loaded), "probabilities")]
