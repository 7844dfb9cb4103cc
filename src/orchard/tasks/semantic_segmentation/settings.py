"""Settings of semantic segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from orchard.data.masks.settings import MaskAugmentSettings
from orchard.data.settings import MaskSource
from orchard.data.settings import Settings as Strict
from orchard.training.settings import TrainSettings

Side = Annotated[int, Field(ge=1)]


class SegmentationSettings(Strict):
    """What is learned of each pixel."""

    class_weights: Literal["none", "balanced"] = Field(
        "none", description="weights of the classes in the cross entropy; balanced: by the inverse of their pixels"
    )
    dice_weight: float = Field(0.0, ge=0, description="weight of the dice loss beside the cross entropy")


class Settings(TrainSettings):
    """What training a network that segments may be told beside what all trainings are."""

    fine_tuning: ClassVar[Mapping[str, Any]] = {
        "epochs": 30,
        "batch_size": 8,
        "optimizer.lr": 1e-4,
        "optimizer.weight_decay": 1e-4,
        "schedule.warmup_epochs": 0.5,
        "augmentation.flip": True,
        "augmentation.scale": (0.5, 2.0),
    }

    data: MaskSource
    shorter_side: int | None = Field(
        None, ge=0, description="shorter side that images are resized to; 0: not resized; default: the variant's"
    )
    crop_size: tuple[Side, Side] | None = Field(
        None, description="height and width of the crops that training sees; default: the variant's"
    )
    trunk_from: str | None = Field(None, description="run or model folder of a classifier whose weights the trunk has")
    freeze: tuple[str, ...] = Field((), description="parameters whose names begin so are not learned")
    augmentation: MaskAugmentSettings = Field(default_factory=MaskAugmentSettings)
    segmentation: SegmentationSettings = Field(default_factory=SegmentationSettings)


class Options(Strict):
    """How a network that segments answers."""

    out: Path | None = Field(None, description="folder for each image's mask, as a PNG of class numbers, and overlay")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the model")
