"""Settings of panoptic segmentation: those of a detector that predicts a set, and what masks add."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from orchard.data.settings import Settings as Strict
from orchard.tasks.object_detection.settings import AnnotatedSettings, DetectionSettings

THRESHOLD = 0.85  # the official code's


class PanopticSettings(Strict):
    """What is learned of masks, and which of them count."""

    focal_weight: float = Field(1.0, ge=0, description="weight of the focal loss of masks")
    dice_weight: float = Field(1.0, ge=0, description="weight of the dice loss of masks")
    threshold: float = Field(
        THRESHOLD, ge=0, le=1, description="least probability of a segment, in evaluation and of the trained model"
    )


class Settings(AnnotatedSettings):
    """What training panoptic segmentation may be told beside what training a detector may be."""

    detection: DetectionSettings = Field(default_factory=DetectionSettings)
    detector_from: str | None = Field(
        None,
        description="run or model folder of a DETR whose weights the detector has; with freeze=detector only the "
        "masks are learned, as in the official second stage",
    )  # fmt: skip
    panoptic: PanopticSettings = Field(default_factory=PanopticSettings)


class EvaluationSettings(Strict):
    """How a panoptic model that is there is judged."""

    threshold: float | None = Field(
        None, ge=0, le=1, description="least probability of a segment that counts; default: that of the training"
    )


class Options(Strict):
    """How a panoptic model answers."""

    threshold: float | None = Field(
        None, ge=0, le=1, description="least probability of a segment that is named; default: that of the training"
    )
    out: Path | None = Field(
        None, description="folder for panoptic.json and the PNGs of segments, in COCO's form, and for overlays"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the model")
