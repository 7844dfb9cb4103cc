"""Settings of instance segmentation: a detector's, without those of set prediction."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from orchard.tasks.object_detection.settings import DetectorSettings as Settings
from orchard.tasks.object_detection.settings import EvaluationSettings
from orchard.tasks.object_detection.settings import Options as DetectorOptions

__all__ = ["EvaluationSettings", "Options", "Settings"]


class Options(DetectorOptions):
    """How a model answers, beside what every detector is told."""

    draw: Path | None = Field(None, description="folder for copies of the images with the masks and boxes drawn")
    crops: Path | None = Field(None, description="folder for each object cut out, transparent around its mask")
    coco: Path | None = Field(None, description="file for the objects and their masks in the form of COCO's JSON")
