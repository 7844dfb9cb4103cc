"""Settings of image to image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from orchard.data.settings import Settings as Strict
from orchard.data.settings import Source
from orchard.training.settings import TrainSettings

LossName = Literal["non-saturating", "least-squares"]


class PartSettings(Strict):
    """How training pictures are varied; the two of a pair alike."""

    enlarge: float = Field(
        1.0, ge=1, le=8, description="shorter side to which a picture is resized before a part of the model's size is "
        "cut out at random, over that size; the papers: 286 / 256",
    )  # fmt: skip
    flip: bool = Field(False, description="mirror left and right half of the time")


class PairedSettings(Strict):
    """What a model learns from pairs (pix2pix)."""

    loss: LossName = Field("non-saturating", description="adversarial loss of both networks")
    pixel_weight: float = Field(100.0, ge=0, description="of the absolute difference of pixels, values from -1 to 1")


class UnpairedSettings(Strict):
    """What a model learns from two sets (CycleGAN)."""

    loss: LossName = Field("least-squares", description="adversarial loss of all networks")
    cycle_weight: float = Field(10.0, ge=0, description="of the absolute difference of a picture and the same there "
                                "and back, values from -1 to 1")  # fmt: skip
    identity_weight: float = Field(
        0.5, ge=0, description="of what a generator changes in a picture that is of its side already, over cycle_weight"
    )
    pool: int = Field(50, ge=0, description="generated pictures of each side that are kept for the discriminators")


class AttentionSettings(Strict):
    """What a model that attends learns from two sets (U-GAT-IT)."""

    adversarial_weight: float = Field(1.0, ge=0, description="of the least-squares losses of scores and of logits")
    cycle_weight: float = Field(10.0, ge=0, description="of the absolute difference of a picture and the same there "
                                "and back, values from -1 to 1")  # fmt: skip
    identity_weight: float = Field(
        10.0, ge=0, description="of what a generator changes in a picture that is of its side already"
    )
    attention_weight: float = Field(
        1000.0, ge=0, description="of the cross-entropy of the generators' classifiers, which say where to look"
    )


class Settings(TrainSettings):
    """What training image to image may be told beside what all trainings are."""

    fine_tuning: ClassVar[Mapping[str, Any]] = {
        "epochs": 20,
        "batch_size": 1,
        "optimizer.name": "adam",
        "optimizer.lr": 1e-4,
        "optimizer.momentum": 0.5,
        "optimizer.weight_decay": 0.0,
        "schedule.name": "constant_linear",
        "schedule.final_fraction": 0.0,
    }

    data: Source
    image_size: int | None = Field(None, ge=1, description="side of the square parts that are learned")
    direction: Literal["AtoB", "BtoA"] = Field(
        "AtoB", description="of pairs: which side is made of which; what learns without pairs learns both"
    )
    augmentation: PartSettings = Field(default_factory=PartSettings)
    paired: PairedSettings = Field(default_factory=PairedSettings)
    unpaired: UnpairedSettings = Field(default_factory=UnpairedSettings)
    attention: AttentionSettings = Field(default_factory=AttentionSettings)


class Options(Strict):
    """How pictures are translated."""

    out: Path | None = Field(None, description="folder for the images; default: translated")
    direction: Literal["AtoB", "BtoA"] | None = Field(
        None, description="which side is made of which; default: as trained, of a model that knows both AtoB"
    )
    keep_size: bool = Field(
        False, description="at the size that a picture has; default: its shorter side becomes that of the training"
    )
    heat: bool = Field(
        False, description="a file more of each picture: where a model that attends looked, over what it was given"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the model")
