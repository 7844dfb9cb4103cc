"""How training images with something drawn on them are varied. Read without torch."""

from __future__ import annotations

from pydantic import Field

from orchard.data.settings import Settings


class AnnotatedAugmentSettings(Settings):
    """What is drawn moves with its image. Everything is off unless a recipe or a person asks for it."""

    flip: bool = Field(False, description="mirror left and right half of the time")
    sides: tuple[int, ...] = Field((), description="shorter sides to choose among; none: as in evaluation")
    crop: float = Field(0.0, ge=0, le=1, description="probability that an image is cropped before it is resized")
    crop_from: tuple[int, ...] = Field((), description="shorter sides to resize to before a crop; none: as it is")
    crop_sides: tuple[int, int] = Field((384, 600), description="shortest and longest side of a crop")
    color: float = Field(0.0, ge=0, le=1, description="strength of random brightness, contrast and saturation")
