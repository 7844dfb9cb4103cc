"""How training images with masks are varied. Read without torch."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from orchard.data.settings import Settings


class MaskAugmentSettings(Settings):
    """Masks move with their image, of which training sees a crop. Everything is off unless it is asked for."""

    flip: bool = Field(False, description="mirror left and right half of the time")
    scale: tuple[float, float] = Field((1.0, 1.0), description="least and largest random scale before the crop")
    color: float = Field(0.0, ge=0, le=1, description="strength of random brightness, contrast and saturation")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        low, high = self.scale
        if not 0 < low <= high <= 16:
            raise ValueError(f"augmentation.scale goes from {low:g} to {high:g}; expected 0 < least <= largest <= 16")
        return self
