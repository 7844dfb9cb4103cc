"""Settings of image completion."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from orchard.data.settings import AugmentSettings, CaptionSource
from orchard.data.settings import Settings as Strict
from orchard.tasks.text_generation.settings import SamplingOptions
from orchard.training.settings import TrainSettings


class PaletteSettings(Strict):
    """The colours that pixels are told by."""

    colours: int | None = Field(
        None, ge=2, le=65_536, description="most colours of a palette made by k-means on the training images; default: "
        "the model's vocabulary",
    )  # fmt: skip
    file: str | None = Field(
        None, description="palette to take instead: OpenAI's .npy (K, 3) in [-1, 1], or a preprocessor_config.json"
    )


class Settings(TrainSettings):
    """What training on pixels may be told beside what all trainings are."""

    data: CaptionSource
    image_size: int | None = Field(None, ge=2, description="side of the square images")
    augmentation: AugmentSettings = Field(default_factory=AugmentSettings)
    palette: PaletteSettings = Field(default_factory=PaletteSettings)
    objective: Literal["autoregressive", "bert"] | None = Field(
        None, description="the next pixel, or pixels that are masked; default: autoregressive, or what the model "
        "learned that it starts from",
    )  # fmt: skip
    mask_share: float = Field(0.15, gt=0, lt=1, description="of the bert objective: share of pixels that are masked")


class Options(SamplingOptions):
    """How images are completed."""

    count: int = Field(1, ge=1, description="images to make, or completions of each image")
    keep: float = Field(0.5, ge=0, lt=1, description="share of an image's rows, from the top, that is kept")
    seed: int = Field(0, ge=0, lt=2**31, description="random seed; the same seed gives the same images")
    out: Path | None = Field(None, description="folder for the images [default: generated]")
