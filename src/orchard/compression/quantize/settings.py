"""Settings of quantization. Read without torch."""

from __future__ import annotations

from pydantic import Field

from orchard.data.settings import Settings as Strict


class Settings(Strict):
    """How activations are calibrated, and whether the weights learn. `epochs` are those of the learning."""

    images: int = Field(256, ge=1, description="training images that say how far activations reach")
    aware: bool = Field(False, description="learn on with the rounding (quantization-aware training)")
