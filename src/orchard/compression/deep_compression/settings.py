"""Settings of Deep Compression. Read without torch."""

from __future__ import annotations

from pydantic import Field

from orchard.data.settings import Settings as Strict


class Settings(Strict):
    """How much is left out, and how many values the rest may have. `epochs` are those of each retraining."""

    sparsity: float = Field(0.9, gt=0, lt=1, description="share of all weights that become zero, smallest first")
    std: float | None = Field(
        None, gt=0, description="instead: zero what is below so many standard deviations of its layer, in every round"
    )
    rounds: int = Field(4, ge=1, le=100, description="prunings, each followed by retraining")
    conv_bits: int = Field(8, ge=1, le=12, description="bits of a convolution's codebook: 2**bits shared values")
    linear_bits: int = Field(5, ge=1, le=12, description="bits of a linear layer's codebook")
