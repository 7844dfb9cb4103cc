"""How training images with boxes are varied. Read without torch."""

from __future__ import annotations

from pydantic import Field

from orchard.data.annotated_settings import AnnotatedAugmentSettings


class BoxAugmentSettings(AnnotatedAugmentSettings):
    """What boxes have besides."""

    mosaic: float = Field(
        0.0, ge=0, le=1, description="probability that an image and three others are put together to one of its size"
    )
