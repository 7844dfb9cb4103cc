"""Settings of super-resolution."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from orchard.data.settings import ReferenceSource
from orchard.data.settings import Settings as Strict
from orchard.tasks.super_resolution.adversarial import AdversarialSettings
from orchard.tasks.super_resolution.texture_settings import TextureSettings
from orchard.training.settings import TrainSettings


class TurnSettings(Strict):
    """How patches are varied: together, the eight ways to lay a square down."""

    flip: bool = Field(False, description="mirror left and right half of the time")
    turn: bool = Field(False, description="turn by 0, 90, 180 or 270 degrees, each as often")


class Settings(TrainSettings):
    """What training super-resolution may be told beside what all trainings are. The scale is the model's."""

    fine_tuning: ClassVar[Mapping[str, Any]] = {
        "epochs": 10,
        "batch_size": 16,
        "optimizer.name": "adam",
        "optimizer.lr": 1e-5,
        "optimizer.weight_decay": 0.0,
    }

    data: ReferenceSource
    loss: Literal["l1", "mse"] = Field("l1", description="of pixels: absolute or squared difference")
    contrastive_weight: float = Field(
        0.0, ge=0, description="of the contrastive loss between patches of one image and of others; IPT: 0.1"
    )
    patch: int = Field(48, ge=4, description="side of the training patches at low resolution, in pixels")
    patches_per_image: int = Field(16, ge=1, description="patches of each image in an epoch")
    augmentation: TurnSettings = Field(default_factory=TurnSettings)
    adversarial: AdversarialSettings = Field(default_factory=AdversarialSettings)
    texture: TextureSettings = Field(default_factory=TextureSettings)


class Options(Strict):
    """How images are enlarged."""

    out: Path | None = Field(None, description="folder for the images; default: enlarged")
    truth: Path | None = Field(
        None, description="folder of the same images at high resolution, under the same names, to compare with"
    )
    reference: Path | None = Field(
        None, description="picture that textures are taken from, or a folder with one of the same name for each image; "
        "for models that take one",
    )  # fmt: skip
    scale: int | None = Field(None, ge=2, description="of a model with several scales; default: the largest")
    tile: int = Field(256, ge=16, description="side of the pieces that are computed one after the other, in pixels")
    self_ensemble: bool = Field(
        False, description="mean over the eight ways to turn and mirror an image: better, eight times as long"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the model")
