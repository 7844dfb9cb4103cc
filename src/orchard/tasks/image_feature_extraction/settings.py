"""Settings of image feature extraction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from orchard.data.settings import AugmentSettings, PictureSource, PreprocessSettings
from orchard.data.settings import Settings as Strict
from orchard.training.settings import TrainSettings


class ContrastSettings(Strict):
    """What is learned from two views of every image."""

    objective: Literal["nt-xent", "momentum"] | None = Field(
        None, description="views of a batch against each other (SimCLR), or against a queue of earlier ones, by a key "
        "encoder that moves slowly (MoCo); default: that of the model's paper",
    )  # fmt: skip
    temperature: float | None = Field(None, gt=0, description="what cosines are divided by; default: the model's")
    queue: int = Field(65_536, ge=1, description="embeddings in the queue of the momentum objective")
    momentum: float = Field(0.999, ge=0, lt=1, description="share of its weights that the key encoder keeps each step")


class ViewSettings(AugmentSettings):
    """How the two views of an image are made; as SimCLR's (arXiv:2002.05709, appendix A), without the hue."""

    crop: Literal["none", "pad", "resized"] = Field("resized", description="as of all images; resized: random area")
    flip: bool = Field(True, description="mirror left and right half of the time")
    color: float = Field(0.8, ge=0, le=1, description="strength of random brightness, contrast and saturation")
    grayscale: float = Field(0.2, ge=0, le=1, description="probability that a view loses its colours")
    blur: float = Field(0.5, ge=0, le=1, description="probability of a Gaussian blur, of 0.1 to 2 pixels")


class EvaluationSettings(Strict):
    """How features are judged where images have labels."""

    k: int = Field(20, ge=1, description="neighbours that vote on the class of an image")
    temperature: float | None = Field(
        None, gt=0, description="neighbours vote with exp(cosine / temperature), as in arXiv:1805.01978 with 0.07; "
        "default: with one vote each",
    )  # fmt: skip
    C: float = Field(1.0, gt=0, description="inverse of the L2 penalty of the linear probe, as scikit-learn has it")
    images: int = Field(5000, ge=2, description="most images of each split that are looked at, at even distances")
    layer: Annotated[int, Field(ge=0)] | Literal["all"] | None = Field(
        None, description="of a model of pixels: which layer's features are judged, or all, each beside the pixels "
        "themselves; default: the middle",
    )  # fmt: skip


class Settings(TrainSettings):
    """What learning features may be told beside what all trainings are."""

    data: PictureSource
    image_size: int | None = Field(None, ge=1, description="side of the square images the model sees")
    preprocessing: PreprocessSettings = Field(default_factory=PreprocessSettings)
    augmentation: ViewSettings = Field(default_factory=ViewSettings)
    contrast: ContrastSettings = Field(default_factory=ContrastSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)


class Options(Strict):
    """How features are given."""

    out: Path | None = Field(
        None, description="write the names and features of all images to this .npz file, of a data set their labels too"
    )
    split: Literal["train", "validation", "test", "all"] | None = Field(
        None, description="the item is a data set, as train takes it, and this the split that is asked for"
    )
