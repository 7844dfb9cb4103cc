"""Settings of image classification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from orchard.compression.distill.settings import TeachingSettings
from orchard.data.settings import ImageSource, MixSettings, PreprocessSettings
from orchard.data.settings import Settings as Strict
from orchard.training.settings import TrainSettings

Tta = Literal["none", "flip", "ten-crop"]
TTA_HELP = "test-time augmentation: the mean of answers for the image and its mirror image, or for ten crops"


class PretrainingSettings(Strict):
    """How the layers of a model that can be pretrained learn from images alone, one after another."""

    epochs: float = Field(0.0, ge=0, description="epochs at first in which each layer in turn learns without labels")
    k: int = Field(1, ge=1, description="steps of Gibbs sampling in contrastive divergence")
    lr: float = Field(1e-3, gt=0, description="largest learning rate of a layer; else the optimizer is as set")


class DistillationSettings(TeachingSettings):
    """Learning from a teacher's answers beside the labels."""

    teacher: str | None = Field(None, description="run or model folder of a classifier of the same classes")


class JointSettings(Strict):
    """How much is learned from each loss by a model that generates images too."""

    classification: float = Field(1.0, gt=0, description="weight of the loss of the labels")
    generative: float = Field(
        1.0, ge=0, description="weight of the generative loss, in nats per pixel, of a model of pixels; 0: not learned"
    )


class LabelSettings(TrainSettings):
    """What the loss of labels may be told, of images or of texts."""

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(ge=0)]] | None = Field(
        None, description="weight of each class in the loss, by its name, the others 1; balanced: as it is rare"
    )
    temperature_scaling: bool = Field(
        False, description="divide logits by what makes validation probabilities most likely (arXiv:1706.04599)"
    )


class RobustSettings(Strict):
    """Learning from the worst images near those of the data (Sinha et al. 2017, arXiv:1710.10571)."""

    gamma: float | None = Field(
        None, gt=0, description="price of an image's squared distance, in values of [0, 1], at which it moves to where "
        "the loss is larger; less of it makes models more robust [default: images stay]",
    )  # fmt: skip
    steps: int = Field(15, ge=1, description="of gradient ascent, by which images move")


class Settings(LabelSettings):
    """What training a classifier may be told beside what all trainings are."""

    fine_tuning: ClassVar[Mapping[str, Any]] = {
        "epochs": 10,
        "head_epochs": 2,
        "clip_norm": 1.0,
        "optimizer.name": "adamw",
        "optimizer.lr": 1e-3,
        "optimizer.weight_decay": 0.01,
        "optimizer.layer_decay": 0.85,
        "schedule.warmup_epochs": 0.5,
        "augmentation.crop": "resized",
        "augmentation.area": (0.7, 1.0),
    }

    data: ImageSource
    image_size: int | None = Field(None, ge=1, description="side of the square images the model sees")
    balanced_sampling: bool = Field(False, description="draw all classes equally often, records of small ones again")
    freeze_trunk: bool = Field(False, description="learn the head only, of a model that is gone on with")
    head_epochs: float = Field(0.0, ge=0, description="epochs at first in which the head alone learns")
    distillation: DistillationSettings = Field(default_factory=DistillationSettings)
    preprocessing: PreprocessSettings = Field(default_factory=PreprocessSettings)
    augmentation: MixSettings = Field(default_factory=MixSettings)
    pretraining: PretrainingSettings = Field(default_factory=PretrainingSettings)
    joint: JointSettings = Field(default_factory=JointSettings)
    robust: RobustSettings = Field(default_factory=RobustSettings)

    @model_validator(mode="after")
    def _has_a_teacher(self) -> Settings:
        if self.distillation.teacher is None and self.distillation != DistillationSettings():
            raise ValueError("distillation.* is for a training with a teacher: name it with distillation.teacher")
        return self

    @model_validator(mode="after")
    def _moves_images(self) -> Settings:
        if self.robust.gamma is not None and self.distillation.teacher is not None:
            raise ValueError("robust.gamma moves images to where the labels are missed, not the teacher; set one")
        return self

    @model_validator(mode="after")
    def _has_a_trunk(self) -> Settings:
        for name in ("freeze_trunk", "head_epochs"):
            if getattr(self, name) and not self.start_from:
                raise ValueError(f"{name} is for a model that has learned: name it with --from")
            if getattr(self, name) and self.pretraining.epochs:
                raise ValueError(f"{name} keeps the layers as they are, pretraining.epochs changes them; set one")
        return self


class EvaluationSettings(Strict):
    """How a classifier that is there is judged."""

    tta: Tta = Field("none", description=TTA_HELP)
    attack: float | None = Field(
        None, gt=0, description="radius, in values of [0, 1], of an attack by projected gradient descent, under which "
        "the accuracy is measured too",
    )  # fmt: skip
    attack_norm: Literal["l2", "linf"] = Field("l2", description="by which the attack's radius is measured")
    attack_steps: int = Field(20, ge=1, description="of the attack")
    gamma: float | None = Field(
        None, gt=0, description="as robust.gamma: what a certificate of distributional robustness is computed with"
    )


class Options(Strict):
    """How a classifier answers."""

    top: int = Field(5, ge=1, description="how many classes to name")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the model")
    tta: Tta = Field("none", description=TTA_HELP)
