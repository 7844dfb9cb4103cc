"""Training models that find objects and their masks: a detector's job, with masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchard.data.boxes.contracts import DetectionData
from orchard.data.boxes.loader import InstanceLoader
from orchard.data.boxes.sources import open_instances
from orchard.data.settings import Source
from orchard.errors import UsageError
from orchard.inference.export import Entry
from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.instance_segmentation import TASK
from orchard.tasks.instance_segmentation.metrics import evaluate_instances
from orchard.tasks.instance_segmentation.objective import InstanceObjective
from orchard.tasks.object_detection import job as detection
from orchard.tasks.object_detection.metrics import Evaluation
from orchard.tasks.object_detection.objective import predict_split
from orchard.tasks.object_detection.settings import EvaluationSettings
from orchard.training.run import RunFolder


class Job(detection.Job):
    """A model for the classes of a set of images whose objects have masks."""

    task = TASK
    loader = InstanceLoader

    def open(self, settings: Any) -> DetectionData:
        return open_instances(settings.data.source, settings.data)

    def make_objective(self, settings: Any) -> InstanceObjective:
        return InstanceObjective(self.model)

    def compare(self, predictions: Any, split: str) -> Evaluation:
        return evaluate_instances(predictions, self.data.splits[split], self.data.classes)

    def report_on(self, predictions: Any, evaluation: Evaluation, run: RunFolder) -> Path:
        from orchard.tasks.instance_segmentation.report import MASKS
        from orchard.tasks.object_detection.report import write_report

        split = self.data.splits[self.report_split]
        return write_report(run, split, predictions, evaluation, self.data.classes, MASKS)


def evaluate_loaded(
    loaded: Loaded, source: str, split: str, settings: Source, evaluation: EvaluationSettings
) -> dict[str, Any]:
    """Metrics on images whose objects have masks; classes as for a detector."""
    images, asked = detection.known_images(loaded, open_instances(source, settings), source, split)
    sizing = detection.sizing_of(loaded.facts, loaded.pictures.size)
    loader = InstanceLoader(images, loaded.pictures, sizing, None, workers=settings.workers or 0)
    model, device = base.on_device(loaded.model)
    found: Any = predict_split(model, (one.to(device) for one in loader.batches(0)), InstanceObjective(model))
    result = evaluate_instances(found, images, loaded.classes)
    return {**asked, **result.figures, "tables": detection.tables_of(result, found, images, evaluation)}


def entries(loaded: Loaded) -> list[Entry]:
    """Raises UsageError: masks are of boxes that are chosen by suppression. How many there are depends on the image,
    and an exported graph has fixed shapes."""
    raise UsageError(
        f"{loaded.folder} holds a {loaded.name}, which answers by non-maximum suppression and cannot be exported; use "
        f"it with orchard predict or orchard.pipeline"
    )
