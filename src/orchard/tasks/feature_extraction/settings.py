"""Settings of feature extraction."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from orchard.data.settings import LabelledTextSource
from orchard.data.settings import Settings as Strict
from orchard.training.settings import TrainSettings


class Settings(TrainSettings):
    """The data that features are judged on."""

    data: LabelledTextSource


class Options(Strict):
    """How features are taken."""

    pooling: Literal["model", "mean"] = Field(
        "model", description="model: what the model takes for the whole text; mean: over the states of its tokens"
    )
    data: str | None = Field(
        None, description="a table (.csv, .tsv, .jsonl, .parquet) or a .txt file with a text a line"
    )
    out: Path | None = Field(None, description="write texts and features of all into this .npz file")
