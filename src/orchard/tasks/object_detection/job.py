"""Training detectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.data.boxes.contracts import DetectionData, DetectionSplit, Relabelled
from orchard.data.boxes.loader import BoxLoader
from orchard.data.boxes.sources import open_boxes
from orchard.data.settings import Source
from orchard.data.sizing import Sizing
from orchard.errors import OrchardError, UsageError
from orchard.inference.export import Entry, example_inputs
from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.object_detection import TASK
from orchard.tasks.object_detection.errors import KINDS, count_by_kind, errors_of_split
from orchard.tasks.object_detection.metrics import Evaluation, evaluate_boxes
from orchard.tasks.object_detection.objective import ObjectDetection, Predictions, objective_for, predict_split
from orchard.tasks.object_detection.settings import (
    AnnotatedSettings,
    DetectionSettings,
    DetectorSettings,
    EvaluationSettings,
)
from orchard.tasks.trunks import TrunkJob
from orchard.training.feed import LoaderFeed
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.portable import save_portable, write_tensors


class Job(TrunkJob):
    """A detector for the classes of a set of images with boxes; what says more than boxes overrides the first parts."""

    task = TASK
    loader: ClassVar[type[BoxLoader]] = BoxLoader
    objective: ObjectDetection

    def open(self, settings: Any) -> DetectionData:
        return open_boxes(settings.data.source, settings.data)

    def make_objective(self, settings: Any) -> ObjectDetection:
        return objective_for(self.model, settings.detection)

    def compare(self, predictions: Any, split: str) -> Evaluation:
        return evaluate_boxes(predictions, self.data.splits[split], self.data.classes)

    def report_on(self, predictions: Any, evaluation: Evaluation, run: RunFolder) -> Path:
        from orchard.tasks.object_detection.report import BOXES, write_report

        split = self.data.splits[self.report_split]
        return write_report(run, split, predictions, evaluation, self.data.classes, BOXES)

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the data and build the model. Raises UsageError or OrchardError for all that does not fit."""
        settings: Any = resolved.settings
        self.start(resolved, self.open(settings), device)
        self.sizing = start_sizing(settings, self.size)
        self.objective = self.make_objective(settings)

    @property
    def settings(self) -> DetectorSettings:
        return self.resolved.settings  # type: ignore[return-value]

    def feed(self) -> LoaderFeed:
        split, s, fabric = self.data.splits["train"], self.settings, self.fabric
        loader = self.loader(
            split, self.preprocess, self.sizing, s.augmentation, batch_size=s.batch_size, seed=s.seed,
            workers=self.workers, rank=fabric.global_rank, world=fabric.world_size,
        )  # fmt: skip
        return LoaderFeed(loader, s.accumulate, lambda batch, number: self.ready(batch), split.key)

    def remarks(self) -> list[str]:
        return [f"{self.data.source}: {note}" for note in self.data.notes]

    def describe(self) -> str:
        return f"{len(self.data.splits['train']):,} images to learn from, {len(self.data.classes)} classes of objects"

    def predictions(self, model: nn.Module, split: str) -> Predictions:
        """What `model` predicts for a split, each process its piece of it, one image at a time."""
        fabric = self.fabric
        loader = self.loader(
            self.data.splits[split], self.preprocess, self.sizing, None, workers=self.workers,
            rank=fabric.global_rank, world=fabric.world_size,
        )  # fmt: skip
        with fabric.autocast():
            mine = predict_split(model, map(self.ready, loader.batches(0)), self.objective)
        return self.objective.answers.merge(base.gather(fabric, mine)) if fabric.world_size > 1 else mine

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.compare(self.predictions(model, "validation"), "validation").figures

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        about = self.portable(
            model, run.path, classes=self.data.classes, preprocess=self.preprocess.to_json(),
            facts={"shorter_side": self.sizing.shorter, "longest_side": self.sizing.longest},
        )  # fmt: skip
        save_portable(run / "model", model, about)

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        predictions = {name: self.predictions(model, name) for name in self.final_splits}
        if self.fabric.is_global_zero:
            (run / "evaluation").mkdir(exist_ok=True)
            for name, found in predictions.items():
                write_tensors(found.tensors(), run / "evaluation" / f"{name}.safetensors")
        metrics = {name: self.compare(found, name).figures for name, found in predictions.items()}
        return self.cost(model) | metrics

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        stored = load_file(run / "evaluation" / f"{self.report_split}.safetensors")
        predictions = self.objective.answers.from_tensors(stored)
        return self.report_on(predictions, self.compare(predictions, self.report_split), run)


def start_sizing(settings: AnnotatedSettings, size: tuple[int, int]) -> Sizing:
    """How large images are: as the settings say, else as the model that is fine-tuned, else as the variant."""
    known: Mapping[str, Any] = base.read_start(settings)[1].facts if settings.start_from else {}
    shorter = settings.shorter_side
    if shorter is None:
        return sizing_of(known, size)
    return sizing_of({"shorter_side": shorter or None, "longest_side": settings.longest_side}, size)


def sizing_of(facts: Mapping[str, Any], size: tuple[int, int]) -> Sizing:
    """What a model's folder says of the size of images; an official checkpoint's, which says nothing, is DETR's own."""
    shorter = facts.get("shorter_side", min(size))
    if shorter is None:
        return Sizing(None, None)
    return Sizing(shorter, facts.get("longest_side") or round(shorter * 1333 / 800))


def evaluate_loaded(
    loaded: Loaded, source: str, split: str, settings: Source, evaluation: EvaluationSettings
) -> dict[str, Any]:
    """Metrics on images with boxes, whose classes must be among the model's: by name, or by number in COCO's files."""
    images, asked = known_images(loaded, open_boxes(source, settings), source, split)
    loader = BoxLoader(
        images, loaded.pictures, sizing_of(loaded.facts, loaded.pictures.size), None, workers=settings.workers or 0
    )  # fmt: skip
    model, device = base.on_device(loaded.model)
    batches = (batch.to(device) for batch in loader.batches(0))
    found = predict_split(model, batches, objective_for(model, DetectionSettings()))
    result = evaluate_boxes(found, images, loaded.classes)
    return {**asked, **result.figures, "tables": tables_of(result, found, images, evaluation)}


def tables_of(
    result: Evaluation, predictions: Predictions, split: DetectionSplit, evaluation: EvaluationSettings
) -> dict[str, list[dict[str, Any]]]:
    """The figures of each class, and the errors by kind among the answers that count as said."""
    counts = count_by_kind(errors_of_split(predictions, split, evaluation.threshold))
    return {
        "classes": [{"class": c.name, "objects": c.count, "ap": c.ap, "ap50": c.ap50} for c in result.classes],
        "errors": [{"error": kind, "count": counts[kind], "meaning": meaning} for kind, meaning in KINDS.items()],
    }


def known_images(
    loaded: Loaded, data: DetectionData, source: str, split: str
) -> tuple[DetectionSplit, dict[str, int]]:  # fmt: skip
    """A split with its classes numbered as the model's are, and how many images that is (`base.counted`)."""
    images = base.pick_split(data.splits, split, source)
    names = data.classes
    if data.category_ids is not None and all(name not in loaded.classes for name in names):
        names = tuple(map(str, data.category_ids))  # what classes of an official checkpoint are called
    strange = [name for name in names if name not in loaded.classes]
    if strange:
        raise OrchardError(
            f"the model of {loaded.folder} does not know the class '{strange[0]}' of {source}; it was not trained on it"
        )
    return Relabelled(images, [loaded.classes.index(name) for name in names]), base.counted(loaded, images)


class Answers(nn.Module):
    """A detector with one tensor as its answer: boxes and the probabilities of the classes, (B, Q, 4 + K)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, padding_mask: Tensor) -> Tensor:
        found = self.model(images, padding_mask)
        return torch.cat([found.boxes, found.logits.softmax(-1)[..., :-1]], dim=-1)


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of. Images are padded to one size; the boxes are shares of what is not padding.

    Raises UsageError for a detector with losses of its own, whose answers are chosen by suppression: how many there are
    depends on the image, and an exported graph has fixed shapes.
    """
    if hasattr(loaded.model, "losses"):
        raise UsageError(
            f"{loaded.folder} holds a {loaded.name}, which answers by non-maximum suppression and cannot be exported; "
            f"models that predict a set of boxes, such as detr_nano, can"
        )
    return [Entry("", Answers(loaded.model).eval(), example_inputs(loaded), "predictions")]
