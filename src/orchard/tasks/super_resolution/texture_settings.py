"""What a network that takes a reference picture may learn from beside the difference of pixels."""

from __future__ import annotations

from pydantic import Field

from orchard.data.settings import Settings


class TextureSettings(Settings):
    """Losses of TTSR (Yang et al. 2020, section 3.3). Without any weight, pixels alone are learned (TTSR-rec)."""

    perceptual_weight: float = Field(0.0, ge=0, description="of the difference of VGG-19's relu5_1; needs texture.vgg")
    transferal_weight: float = Field(
        0.0, ge=0, description="of the difference between the features of the result and the textures it was given"
    )
    adversarial_weight: float = Field(0.0, ge=0, description="of a discriminator's score, which learns as in WGAN-GP")
    gradient_penalty: float = Field(10.0, ge=0, description="of the discriminator's slope, by its distance from 1")
    discriminator_steps: int = Field(2, gt=0, description="updates of the discriminator for one of the network")
    discriminator_lr: float | None = Field(None, gt=0, description="learning rate; default: the network's")
    warmup_epochs: float = Field(2.0, ge=0, description="epochs at first in which pixels alone are learned")
    vgg: str | None = Field(
        None, description="file of torchvision's VGG-19 weights, with which the texture extractor begins and by which "
        "the perceptual loss compares; without it that loss is left out",
    )  # fmt: skip

    @property
    def any(self) -> bool:
        """Is there something to learn beside pixels?"""
        return any((self.perceptual_weight, self.transferal_weight, self.adversarial_weight))
