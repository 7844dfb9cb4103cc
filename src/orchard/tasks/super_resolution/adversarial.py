"""Settings of adversarial super-resolution. Read without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.data.settings import Settings


class AdversarialSettings(Settings):
    """What the generator of a pair learns from, and when the discriminator begins. Differences are of values 0 to 1."""

    loss: Literal["non-saturating", "minimax", "least-squares", "hinge", "wasserstein", "probabilities"] = Field(
        "non-saturating", description="adversarial loss; probabilities: differences of the discriminator's sigmoids"
    )
    weight: float = Field(1e-3, ge=0, description="of the adversarial loss in the generator's")
    pixel_weight: float = Field(1.0, ge=0, description="of the difference of pixels, which the setting loss names")
    perceptual: str | None = Field(
        None, description="run or model folder of an image classifier (vgg19), whose last feature maps are compared; "
        "default: nothing perceptual is learned"
    )  # fmt: skip
    perceptual_weight: float = Field(0.006, ge=0, description="of the squared difference of the feature maps")
    total_variation_weight: float = Field(0.0, ge=0, description="of the total variation of enlarged images")
    discriminator_start: int = Field(
        0, ge=0, description="step from which on the discriminator learns and counts; before, the generator is alone"
    )
