"""Settings of zero-shot image classification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from orchard.data.settings import AugmentSettings, CaptionSource, PreprocessSettings, TextSettings
from orchard.data.settings import Settings as Strict
from orchard.training.settings import TrainSettings


class Settings(TrainSettings):
    """What training on images with captions may be told beside what all trainings are."""

    fine_tuning: ClassVar[Mapping[str, Any]] = {
        "epochs": 5,
        "clip_norm": 1.0,
        "optimizer.lr": 1e-4,
        "optimizer.weight_decay": 0.1,
        "schedule.warmup_epochs": 0.1,
    }

    data: CaptionSource
    image_size: int | None = Field(None, ge=1, description="side of the square images the model sees")
    preprocessing: PreprocessSettings = Field(default_factory=PreprocessSettings)
    augmentation: AugmentSettings = Field(default_factory=AugmentSettings)
    text: TextSettings = Field(default_factory=TextSettings)


class Options(Strict):
    """How a model of images and text answers."""

    top: int = Field(5, ge=1, description="how many classes, or images for a query, to name")
    labels: tuple[str, ...] = Field((), description="a class to choose from, in words; repeat it for each")
    query: str | None = Field(None, description="search for the images that fit this text")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the model")
