"""Settings of image tokenization."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.data.settings import AugmentSettings, CaptionSource
from orchard.data.settings import Settings as Strict
from orchard.training.settings import TrainSettings


class TokenizationSettings(Strict):
    """What a tokenizer learns from."""

    pixel_loss: Literal["l1", "l2"] = Field("l1", description="of pixels, unless the tokenizer has a density")
    codebook_weight: float = Field(1.0, ge=0, description="of the codebook's loss")
    perceptual_weight: float = Field(1.0, ge=0, description="of LPIPS; without its files nothing perceptual is learned")
    perceptual_files: tuple[str, ...] = Field(
        (), description="LPIPS weights: one VQGAN checkpoint, or torchvision's VGG16 and the LPIPS file for it"
    )
    discriminator_weight: float = Field(
        0.8, ge=0, description="of the adversarial loss, beside the adaptive weight; 0: no discriminator"
    )
    discriminator_start: int = Field(10_000, ge=0, description="step from which on the discriminator learns and counts")
    discriminator_layers: int = Field(
        3, ge=1, description="convolutions of stride 2 in the discriminator; fewer see smaller patches"
    )
    discriminator_width: int = Field(64, ge=1, description="channels of the discriminator's first convolution")
    restart_after: int | None = Field(
        10, gt=0, description="batches after which an unused code starts anew; more for codebooks larger than a batch"
    )


class Settings(TrainSettings):
    """What training an image tokenizer may be told beside what all trainings are."""

    data: CaptionSource
    image_size: int | None = Field(None, ge=1, description="side of the square images the model sees")
    augmentation: AugmentSettings = Field(default_factory=AugmentSettings)
    tokenization: TokenizationSettings = Field(default_factory=TokenizationSettings)
