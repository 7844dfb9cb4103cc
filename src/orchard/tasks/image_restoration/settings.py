"""Settings of image restoration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from orchard.data.settings import CaptionSource
from orchard.data.settings import Settings as Strict
from orchard.tasks.image_restoration.degradation import DegradationName
from orchard.tasks.super_resolution.settings import TurnSettings
from orchard.training.settings import TrainSettings

FORMS = (
    "noise:SIGMA or noise:FROM-TO, Gaussian, its standard deviation in levels from 0 to 255; rain:PERCENT or "
    "rain:FROM-TO, percentage of the image under streaks"
)


class Settings(TrainSettings):
    """What training image restoration may be told beside what all trainings are."""

    fine_tuning: ClassVar[Mapping[str, Any]] = {
        "epochs": 10,
        "batch_size": 16,
        "optimizer.name": "adam",
        "optimizer.lr": 1e-5,
        "optimizer.weight_decay": 0.0,
    }

    data: CaptionSource
    degradation: DegradationName = Field(
        "noise:25", description=f"{FORMS}; without a say where the data are pairs (folders HR and LRx1)"
    )
    loss: Literal["l1", "mse"] = Field("mse", description="of pixels: absolute or squared difference")
    patch: int = Field(40, ge=4, description="side of the training patches, in pixels")
    patches_per_image: int = Field(16, ge=1, description="patches of each image in an epoch")
    augmentation: TurnSettings = Field(default_factory=TurnSettings)


class EvaluationSettings(Strict):
    """How a model that is there is judged."""

    degradation: DegradationName | None = Field(
        None,
        description=f"{FORMS}; of a range, noise of 15, 25 and 50 or rain of 5 and 25 are compared; default: that of "
        "its training",
    )


class Options(Strict):
    """How images are restored."""

    out: Path | None = Field(None, description="folder for the images; default: restored")
    truth: Path | None = Field(None, description="folder of the clean images, under the same names, to compare with")
    sigma: float | None = Field(
        None, gt=0, le=255, description="standard deviation of the noise, for a model that must be told"
    )
    tile: int = Field(256, ge=16, description="side of the pieces that are computed one after the other, in pixels")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the model")
