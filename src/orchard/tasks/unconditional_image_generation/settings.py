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
        None,
        description="run or model folder of an image classifier in whose features images are compared, such as of "
        "inception_v3_fid; also of `orchard evaluate`",
    )
    samples: int = Field(
        1000,
        ge=10,
        description="real and generated images that are compared, or as many as there are; also of `orchard evaluate`",
    )


class AdversarialSettings(Strict):
    """What a generator and a discriminator learn from."""

    loss: Literal[
        "minimax",
        "non-saturating",
        "least-squares",
        "least-squares-pearson",
        "hinge",
        "wasserstein",
        "loss-sensitive",
    ] = Field("non-saturating", description="adversarial loss of both networks")
    leak: float = Field(0.0, le=1, description="slope of the loss-sensitive loss below zero; 1 is the Wasserstein loss")
    margin: float = Field(
        0.0,
        ge=0,
        description="by how much a generated image shall score below the real one beside it, times the mean absolute "
        "difference of their values",
    )
    smoothing: float = Field(
        0.0, ge=0, lt=1, description="how far the label of real images is moved from 1 (one-sided label smoothing)"
    )
    drift: float = Field(0.0, ge=0, description="weight of the mean squared score of real images")
    feature_matching: bool = Field(
        False, description="whether the generator learns from the discriminator's mean features in place of its scores"
    )
    historical_averaging: float = Field(
        0.0, ge=0, description="weight of each network's squared distance from the mean of its parameters so far"
    )
    information: float = Field(
        0.0, ge=0, description="weight of the information that images have of the codes in their noise, for both "
        "networks of a model with such",
    )  # fmt: skip
    orthogonality: float = Field(0.0, ge=0, description="weight of the orthogonal regularisation of the generator")
    weight_clip: float | None = Field(
        None, gt=0, description="largest magnitude of the discriminator's parameters, to which each update is cut"
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
    path_length_weight: float = Field(0.0, ge=0, description="of a generator's path-length regulariser; 0: none")
    path_length_every: int = Field(
        4, gt=0, description="steps between two updates by the path length, which weighs as much more"
    )
    mixing: float = Field(0.0, ge=0, le=1, description="share of batches whose images mix the styles of two noises")
    phase_images: int = Field(
        1_600_000,
        gt=0,
        description="of a pair that grows: images for each side, in the first half of which its layers are faded in",
    )
    lazy_correction: bool = Field(
        False, description="whether a lazy regulariser's updates lower its network's learning rate and Adam's betas"
    )


class DiffusionSettings(Strict):
    """What a denoiser learns from. The process of noise belongs to the model: `architecture.schedule` and its kin."""

    loss: Literal["simple", "hybrid", "bound"] | None = Field(
        None,
        description="squared error, with the variational bound for the variance, or the bound alone; default: simple, "
        "and hybrid where the variance is learned",
    )


@dataclass(frozen=True)
class NamedObjective:
    """What a paper trains with: a family, which is a module of this folder, and values of the settings of its name.

    `optimizer` are values of the settings of that name, where the paper's objective needs an optimizer of its own.
    """

    family: str
    values: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Mapping[str, Any] = field(default_factory=dict)


def adversarial(loss: str, optimizer: Mapping[str, Any] | None = None, **values: Any) -> NamedObjective:
    return NamedObjective("adversarial", {"loss": loss, **values}, optimizer or {})


LS_GAN_MARGIN = 2.5  # the authors' code: 0.0002 times the summed difference of 3 x 64 x 64 values
RMSPROP = {"name": "rmsprop", "lr": 5e-5, "momentum": 0.0, "beta2": 0.99, "weight_decay": 0.0}

# The first of a family is what its models learn from where nothing else is said.
OBJECTIVES = {
    "dcgan": adversarial("non-saturating"),
    "gan": adversarial("minimax"),
    "lsgan": adversarial("least-squares"),
    "lsgan-pearson": adversarial("least-squares-pearson"),
    "ls-gan": adversarial("loss-sensitive", margin=LS_GAN_MARGIN),
    "gls-gan": adversarial("loss-sensitive", margin=LS_GAN_MARGIN, leak=0.5, weight_clip=0.04),
    "improved-gan": adversarial("non-saturating", smoothing=0.1, feature_matching=True, historical_averaging=1.0),
    "infogan": adversarial("non-saturating", information=1.0),
    "hinge": adversarial("hinge"),
    "wgan": adversarial("wasserstein", RMSPROP, weight_clip=0.01, discriminator_steps=5),
    "wgan-gp": adversarial(
        "wasserstein", regulariser="gradient-penalty", regulariser_weight=10.0, discriminator_steps=5
    ),
    "progan": adversarial(
        "wasserstein", regulariser="gradient-penalty", regulariser_weight=10.0, drift=0.001, phase_images=1_600_000
    ),
    "r1": adversarial("non-saturating", regulariser="r1", regulariser_weight=10.0),
    "stylegan": adversarial(
        "non-saturating", regulariser="r1", regulariser_weight=10.0, mixing=0.9, phase_images=1_200_000
    ),
    "stylegan2": adversarial(
        "non-saturating",
        regulariser="r1",
        regulariser_weight=10.0,
        regulariser_every=16,
        path_length_weight=2.0,
        mixing=0.9,
        lazy_correction=True,
    ),
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
        None, ge=0, description="of a model with styles: their distance from the mean style, up to 1; of one with "
        "classes: largest size of the numbers of its noise, such as 0.5. Less of it gives typical images and less "
        "variety [default: all]",
    )  # fmt: skip
    sweep: str | None = Field(
        None, description="of the same models: truncations such as 0,0.5,1, at each of which --count images are made"
    )
    codes: str | None = Field(
        None, description="of a model with codes in its noise, such as InfoGAN: their values for all images, first the "
        "categories by number, such as 7,0.5,-1",
    )  # fmt: skip
    mixing: int | None = Field(
        None, ge=0, lt=2**31, description="of a model with styles: seed whose images give theirs to the fine layers"
    )
    grid: int | None = Field(
        None, ge=0, lt=2**31, description="of a model with styles: seed whose --count images give theirs to the fine "
        "layers of each of --count images, in a sheet of all pairs",
    )  # fmt: skip
    layers: str | None = Field(
        None, description="of --mixing and --grid: layers that take the other styles, from 0, such as 4-7 [default: "
        "the finer half]",
    )  # fmt: skip
    walk: int | None = Field(
        None, ge=0, lt=2**31, description="of an adversarial pair: seed to whose image --count images lead; also as GIF"
    )
    animation: Literal["gif", "mp4"] | None = Field(None, description="of --walk: the file's kind [default: gif]")
    latent: Path | None = Field(
        None, description="of a model with styles: file that --project wrote, to begin with in place of --seed's images"
    )
    project: Path | None = Field(
        None, description="of a model with styles: picture to find the styles of; makes nothing else"
    )
    project_features: Path | None = Field(
        None, description="of --project: run of a classifier in whose features pictures are compared [default: the "
        "judge of the model's training]",
    )  # fmt: skip
    project_steps: int | None = Field(None, ge=1, description="of --project: steps of its search [default: 1000]")
