"""Settings of image classification."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.data.settings import ImageSource, MixSettings
from orchard.data.settings import Settings as Strict
from orchard.training.settings import TrainSettings


class Settings(TrainSettings):
    """What training a classifier may be told beside what all trainings are."""

    data: ImageSource
    image_size: int | None = Field(None, ge=1, description="side of the square images the model sees")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    freeze_trunk: bool = Field(False, description="learn the head only")
    augmentation: MixSettings = MixSettings()


class Options(Strict):
    """How a classifier answers."""

    top: int = Field(5, ge=1, description="how many classes to name")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the model")
