"""Settings of object detection."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from orchard.data.annotated_settings import AnnotatedAugmentSettings
from orchard.data.boxes.settings import BoxAugmentSettings
from orchard.data.settings import Settings as Strict
from orchard.training.settings import TrainSettings


class DetectionSettings(Strict):
    """How predictions of a set are matched to objects, and what is learned from each pair."""

    label_weight: float = Field(1.0, ge=0, description="weight of the classes' cross entropy")
    l1_weight: float = Field(5.0, ge=0, description="weight of the absolute difference of boxes")
    giou_weight: float = Field(2.0, ge=0, description="weight of 1 - generalised intersection over union")
    no_object_weight: float = Field(0.1, gt=0, description="weight of the class 'no object' among the classes")
    label_cost: float = Field(1.0, ge=0, description="weight of the class's probability in matching")
    l1_cost: float = Field(5.0, ge=0, description="weight of the absolute difference of boxes in matching")
    giou_cost: float = Field(2.0, ge=0, description="weight of the generalised overlap in matching")


class AnnotatedSettings(TrainSettings):
    """What training on images with something drawn on them may be told beside what all trainings are."""

    fine_tuning: ClassVar[Mapping[str, Any]] = {
        "epochs": 20,
        "clip_norm": 0.1,
        "optimizer.lr": 1e-4,
        "optimizer.weight_decay": 1e-4,
        "optimizer.scales.trunk": 0.1,
        "schedule.warmup_epochs": 0.5,
    }

    shorter_side: int | None = Field(
        None, ge=0, description="shorter side that images are resized to; 0: not resized; default: the variant's"
    )
    longest_side: int | None = Field(
        None, ge=1, description="most pixels of the longer side; default: 1333 for a shorter side of 800, in proportion"
    )
    trunk_from: str | None = Field(None, description="run or model folder of a classifier whose weights the trunk has")
    freeze: tuple[str, ...] = Field((), description="parameters whose names begin so are not learned")
    augmentation: AnnotatedAugmentSettings = Field(default_factory=AnnotatedAugmentSettings)


class DetectorSettings(AnnotatedSettings):
    """What training any detector may be told."""

    augmentation: BoxAugmentSettings = Field(default_factory=BoxAugmentSettings)


class Settings(DetectorSettings):
    """The same, and what set prediction is told."""

    detection: DetectionSettings = Field(default_factory=DetectionSettings)


class EvaluationSettings(Strict):
    """How a detector that is there is judged."""

    threshold: float = Field(
        0.5, ge=0, le=1, description="least probability of an answer that the count of errors by kind takes as said"
    )


class Options(Strict):
    """How a detector answers."""

    threshold: float = Field(0.5, ge=0, le=1, description="least probability of an object that is named")
    draw: Path | None = Field(None, description="folder for copies of the images with the boxes drawn")
    crops: Path | None = Field(None, description="folder for each object cut out")
    coco: Path | None = Field(None, description="file for the objects in the form of COCO's JSON")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the model")
