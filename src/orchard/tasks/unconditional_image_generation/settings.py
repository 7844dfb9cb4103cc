"""Settings of unconditional image generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from orchard.data.settings import AugmentSettings, PictureSource
from orchard.data.settings import Settings as Strict
from orchard.training.settings import TrainSettings


class GenerationSettings(Strict):
    """How generated images are judged."""

    judge: str | None = Field(
        None, description="run or model folder of an image classifier in whose features images are compared"
    )
    samples: int = Field(
        1000, ge=10, description="real and generated images that are compared, or as many as there are"
    )


class AdversarialSettings(Strict):
    """What a generator and a discriminator learn from."""

    loss: Literal["minimax", "non-saturating", "least-squares", "hinge", "wasserstein"] = Field(
        "non-saturating", description="adversarial loss of both networks"
    )
    regulariser: Literal["none", "gradient-penalty", "r1"] = Field(
        "none", description="what holds the discriminator's slope back"
    )
    regulariser_weight: float = Field(10.0, ge=0, description="of the regulariser")
    regulariser_every: int = Field(
        1, gt=0, description="steps between two updates by the regulariser, which then weighs as much more"
    )
    discriminator_steps: int = Field(
        1, gt=0, description="updates of the discriminator, each on a batch of its own, for one of the generator"
    )
    discriminator_lr: float | None = Field(None, gt=0, description="learning rate; default: the generator's")


class DiffusionSettings(Strict):
    """What a denoiser learns from. The process of noise belongs to the model: `architecture.schedule` and its kin."""

    loss: Literal["simple", "hybrid", "bound"] | None = Field(
        None,
        description="squared error, with the variational bound for the variance, or the bound alone; default: simple, "
        "and hybrid where the variance is learned",
    )


@dataclass(frozen=True)
class NamedObjective:
    """What a paper trains with: a family, which is a module of this folder, and values of the settings of its name."""

    family: str
    values: Mapping[str, Any] = field(default_factory=dict)


# The first of a family is what its models learn from where nothing else is said.
OBJECTIVES = {
    "dcgan": NamedObjective("adversarial", {"loss": "non-saturating"}),
    "gan": NamedObjective("adversarial", {"loss": "minimax"}),
    "lsgan": NamedObjective("adversarial", {"loss": "least-squares"}),
    "hinge": NamedObjective("adversarial", {"loss": "hinge"}),
    "wgan-gp": NamedObjective(
        "adversarial",
        {
            "loss": "wasserstein",
            "regulariser": "gradient-penalty",
            "regulariser_weight": 10.0,
            "discriminator_steps": 5,
        },
    ),
    "r1": NamedObjective("adversarial", {"loss": "non-saturating", "regulariser": "r1", "regulariser_weight": 10.0}),
    "ddpm": NamedObjective("diffusion"),
}


class Settings(TrainSettings):
    """What training a generative model may be told beside what all trainings are."""

    data: PictureSource
    image_size: int | None = Field(None, ge=1, description="side of the square images that are made")
    augmentation: AugmentSettings = Field(default_factory=AugmentSettings)
    objective: str | None = Field(
        None, description=f"what it learns from, by its paper: {', '.join(OBJECTIVES)}; default: what fits the model"
    )
    generation: GenerationSettings = Field(default_factory=GenerationSettings)
    adversarial: AdversarialSettings = Field(default_factory=AdversarialSettings)
    diffusion: DiffusionSettings = Field(default_factory=DiffusionSettings)


class Options(Strict):
    """How a generative model answers."""

    count: int = Field(1, ge=1, description="images to make")
    seed: int = Field(0, ge=0, lt=2**31, description="random seed; the same seed gives the same images")
    classes: str | None = Field(
        None, description="of a model with classes: which to make --count images of each of, by name or number, such "
        "as cat,dog [default: all in turn]",
    )  # fmt: skip
    out: Path | None = Field(None, description="folder for the images [default: generated]")
    steps: int | None = Field(None, ge=1, description="of a diffusion model: steps from noise to image [default: 50]")
    sampler: Literal["ddim", "ddpm"] | None = Field(
        None, description="of a diffusion model: how a step is taken [default: ddim]"
    )
    eta: float | None = Field(
        None, ge=0, le=1, description="of the ddim sampler: share of new noise in a step [default: 0]"
    )
    truncation: float | None = Field(
        None, gt=0, description="of a model with classes: largest size of the numbers of its noise, such as 0.5; less "
        "of it gives typical images and less variety [default: any]",
    )  # fmt: skip
