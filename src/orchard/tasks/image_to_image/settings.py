"""Settings of image to image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

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


class HoleSettings(Strict):
    """Holes that training pictures are given; those of evaluation are always the same."""

    least: float = Field(0.1, gt=0, lt=1, description="share of a picture's pixels in its hole, at least about")
    most: float = Field(0.4, gt=0, lt=1, description="and at most about")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"holes.least is {self.least:g}, more than holes.most, {self.most:g}")
        return self


class InpaintingSettings(Strict):
    """What a model learns from pictures with holes (partial convolutions). Weights are of means of absolute
    differences, images over ImageNet's standard deviation."""

    hole_weight: float = Field(6.0, ge=0, description="of pixels in the hole")
    valid_weight: float = Field(1.0, ge=0, description="of known pixels")
    variation_weight: float = Field(0.1, ge=0, description="of neighbours in the result")
    perceptual_weight: float = Field(0.05, ge=0, description="of VGG-16's features; needs inpainting.vgg")
    style_weight: float = Field(120.0, ge=0, description="of their Gram matrices; needs inpainting.vgg")
    vgg: str | None = Field(None, description="file of torchvision's VGG-16 weights; without it both are left out")
    frozen_norms: bool = Field(False, description="the encoder's norms stand still, for fine-tuning with holes")


class AdversarialInpaintingSettings(Strict):
    """What a model with a discriminator learns from pictures with holes (context encoders)."""

    pixel_weight: float = Field(
        0.999, ge=0, le=1, description="of the squared difference of pixels, values from -1 to 1; the rest is the "
        "adversarial loss's",
    )  # fmt: skip
    overlap_weight: float = Field(10.0, ge=0, description="of pixels around the hole, over those in it")
    discriminator_share: float = Field(
        0.1, gt=0, description="learning rate of the discriminator, over the generator's"
    )  # fmt: skip


class ColouringSettings(Strict):
    """What a model learns of colours (CIC)."""

    mix: float = Field(
        0.5, ge=0, le=1, description="share of the uniform distribution in the weights of colours; at 1 all weigh alike"
    )  # fmt: skip


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
    holes: HoleSettings = Field(default_factory=HoleSettings)
    inpainting: InpaintingSettings = Field(default_factory=InpaintingSettings)
    adversarial_inpainting: AdversarialInpaintingSettings = Field(default_factory=AdversarialInpaintingSettings)
    colouring: ColouringSettings = Field(default_factory=ColouringSettings)
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
    mask: Path | None = Field(
        None, description="for a model that fills holes: a picture of the same size, white where it is to be filled, "
        "or a folder of them under the same names; default: what is transparent in each picture",
    )  # fmt: skip
    heat: bool = Field(
        False, description="a file more of each picture: where a model that attends looked, over what it was given"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the model")
