"""Settings of channel pruning. Read without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.data.settings import Settings as Strict


class Settings(Strict):
    """How much of the network is left, and by what. `epochs` are those of each round's retraining."""

    macs: float = Field(0.5, ge=0.02, lt=1, description="share of the multiply-adds that is left at most")
    by: Literal["norm", "batch-norm"] = Field(
        "norm", description="which channels go first: those with the smallest filters (L1 norm, arXiv:1608.08710), or "
        "with the smallest scale of batch norm (arXiv:1708.06519)",
    )  # fmt: skip
    rounds: int = Field(1, ge=1, le=100, description="prunings, each followed by retraining")
