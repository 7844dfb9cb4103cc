"""Training panoptic segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.data.panoptic.contracts import Relabelled
from orchard.data.panoptic.loader import PanopticLoader
from orchard.data.panoptic.sources import open_panoptic
from orchard.data.settings import Source
from orchard.errors import OrchardError, UsageError
from orchard.inference.export import Entry, example_inputs
from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.known_classes import head_rows, unnamed
from orchard.tasks.object_detection.job import sizing_of, start_sizing
from orchard.tasks.object_detection.settings import DetectionSettings
from orchard.tasks.panoptic_segmentation import TASK
from orchard.tasks.panoptic_segmentation.objective import PanopticSegmentation, Predictions, predict_split
from orchard.tasks.panoptic_segmentation.settings import THRESHOLD, EvaluationSettings, PanopticSettings, Settings
from orchard.tasks.trunks import TrunkJob
from orchard.training.feed import LoaderFeed
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.folders import model_folder
from orchard.weights.portable import read_portable, save_portable, write_tensors

COCO_THINGS = 90  # of COCO's category numbers, which official models call their classes by, up to this they are things


class Job(TrunkJob):
    """A network that finds the segments of the classes of a set."""

    task = TASK
    objective: PanopticSegmentation

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the data and build the model. Raises UsageError or OrchardError for all that does not fit."""
        settings: Any = resolved.settings
        self.start(resolved, open_panoptic(settings.data.source, settings.data), device)
        if settings.detector_from:
            load_detector(self.model, model_folder(Path(settings.detector_from)), self.data.classes)
        self.sizing = start_sizing(settings, self.size)
        self.objective = PanopticSegmentation(settings.detection, settings.panoptic, self.data.things)

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    def feed(self) -> LoaderFeed:
        split, s, fabric = self.data.splits["train"], self.settings, self.fabric
        loader = PanopticLoader(
            split, self.preprocess, self.sizing, s.augmentation, batch_size=s.batch_size, seed=s.seed,
            workers=self.workers, rank=fabric.global_rank, world=fabric.world_size,
        )  # fmt: skip
        return LoaderFeed(loader, s.accumulate, lambda batch, number: self.ready(batch), split.key)

    def describe(self) -> str:
        things = sum(self.data.things)
        kinds = f"{things} classes of things and {len(self.data.classes) - things} of stuff"
        return f"{len(self.data.splits['train']):,} images to learn from, {kinds}"

    def predictions(self, model: nn.Module, split: str) -> Predictions:
        """How right `model` is on a split, each process its piece of it, one image at a time."""
        fabric = self.fabric
        loader = PanopticLoader(
            self.data.splits[split], self.preprocess, self.sizing, None, workers=self.workers,
            rank=fabric.global_rank, world=fabric.world_size,
        )  # fmt: skip
        with fabric.autocast():
            mine = predict_split(model, map(self.ready, loader.batches(0)), self.objective)
        return Predictions.merge(base.gather(fabric, mine)) if fabric.world_size > 1 else mine

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.predictions(model, "validation").figures(self.data.things)

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        data = self.data
        about = self.portable(
            model, run.path, classes=data.classes, preprocess=self.preprocess.to_json(),
            facts={
                "shorter_side": self.sizing.shorter, "longest_side": self.sizing.longest,
                "things": list(data.things), "threshold": self.settings.panoptic.threshold,
                "category_ids": list(data.category_ids or range(1, len(data.classes) + 1)),
            },
        )  # fmt: skip
        save_portable(run / "model", model, about)

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        predictions = {name: self.predictions(model, name) for name in self.final_splits}
        if self.fabric.is_global_zero:
            (run / "evaluation").mkdir(exist_ok=True)
            for name, found in predictions.items():
                write_tensors(dict(vars(found)), run / "evaluation" / f"{name}.safetensors")
        metrics = {name: found.figures(self.data.things) for name, found in predictions.items()}
        return self.cost(model) | metrics

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.panoptic_segmentation.report import write_report

        predictions = Predictions(**load_file(run / "evaluation" / f"{self.report_split}.safetensors"))
        loader = PanopticLoader(self.data.splits[self.report_split], self.preprocess, self.sizing, None)
        return write_report(
            run, data=self.data, predictions=predictions, model=model, loader=loader, objective=self.objective
        )


def load_detector(model: Any, folder: Path, classes: Sequence[str]) -> None:
    """Give a model's detector the weights of a DETR, the rows of its classes by their names.

    Raises UsageError for another model than one with the same detector, OrchardError for one of another shape.
    """
    about, state = read_portable(folder)
    fresh = model.detector.state_dict()
    strange = sorted(state.keys() ^ fresh.keys())
    if strange:
        raise UsageError(
            f"setting 'detector_from': {folder} holds a {about.model}, and the detector is a DETR on a "
            f"{model.config.trunk}; '{strange[0]}' is in one of them only"
        )
    known = [name for name in classes if name in about.classes and not unnamed(about.classes)]
    for name, tensor in fresh.items():
        if name.startswith("class_head.") and tuple(classes) != about.classes:
            state[name] = head_rows(state[name], tensor, about.classes, classes, known)
        if state[name].shape != tensor.shape:
            raise OrchardError(
                f"{folder}: '{name}' has shape {tuple(state[name].shape)}, here {tuple(tensor.shape)} is needed"
            )
    model.detector.load_state_dict(state)


def things_of(loaded: Loaded) -> list[bool]:
    """Which classes of a trained model are things; an official checkpoint, which says nothing, has COCO's numbers."""
    known = loaded.facts.get("things")
    if known is not None:
        return [bool(thing) for thing in known]
    return [number <= COCO_THINGS for number in range(len(loaded.classes))]


def threshold_of(loaded: Loaded) -> float:
    """The least probability of a segment that a trained model names."""
    return float(loaded.facts.get("threshold", THRESHOLD))


def evaluate_loaded(
    loaded: Loaded, source: str, split: str, settings: Source, evaluation: EvaluationSettings
) -> dict[str, float]:
    """Metrics on images with segments, whose classes must be among the model's: by name, or by number in the files."""
    data = open_panoptic(source, settings)
    images = base.pick_split(data.splits, split, source)
    names = data.classes
    if data.category_ids is not None and all(name not in loaded.classes for name in names):
        names = tuple(map(str, data.category_ids))  # what classes of an official checkpoint are called
    strange = [name for name in names if name not in loaded.classes]
    if strange:
        raise OrchardError(
            f"the model of {loaded.folder} does not know the class '{strange[0]}' of {source}; it was not trained on it"
        )
    asked = base.counted(loaded, images)
    relabelled = Relabelled(images, [loaded.classes.index(name) for name in names])
    sizing = sizing_of(loaded.facts, loaded.pictures.size)
    loader = PanopticLoader(relabelled, loaded.pictures, sizing, None, workers=settings.workers or 0)
    model, device = base.on_device(loaded.model)
    threshold = threshold_of(loaded) if evaluation.threshold is None else evaluation.threshold
    objective = PanopticSegmentation(DetectionSettings(), PanopticSettings(threshold=threshold), things_of(loaded))
    found = predict_split(model, (batch.to(device) for batch in loader.batches(0)), objective)
    return {**asked, **found.figures(objective.things)}


class Predictor(nn.Module):
    """A model with one tensor as its answer, (B, Q, 4 + K + h w): the box, the probabilities of the classes, and those
    of the pixels of the mask, row by row."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, padding_mask: Tensor) -> Tensor:
        found = self.model(images, padding_mask)
        classes = found.detections.logits.softmax(-1)[..., :-1]
        return torch.cat([found.detections.boxes, classes, found.masks.sigmoid().flatten(2)], dim=-1)


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of. Images are padded to one size; what is found is not merged."""
    return [Entry("", Predictor(loaded.model).eval(), example_inputs(loaded), "predictions")]
