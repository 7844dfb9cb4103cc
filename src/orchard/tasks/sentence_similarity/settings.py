"""Settings of sentence similarity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from orchard.data.settings import LabelledTextSource
from orchard.data.settings import Settings as Strict
from orchard.tasks.text_classification.settings import EncodedTextSettings
from orchard.training.settings import SEQUENCE_FINE_TUNING, TrainSettings


class Settings(TrainSettings):
    """What training vectors of sentences may be told beside what all trainings are."""

    fine_tuning: ClassVar[Mapping[str, Any]] = SEQUENCE_FINE_TUNING

    data: LabelledTextSource
    text: EncodedTextSettings = Field(default_factory=EncodedTextSettings)
    pooling: Literal["model", "mean"] = Field(
        "mean", description="model: what the model takes for the whole text; mean: over the states of its tokens"
    )


class Options(Strict):
    """How sentences are compared: the first that is given with all others."""

    data: str | None = Field(None, description="a .txt file with a sentence a line, or a table, to compare with")
    top: int | None = Field(None, ge=1, description="only so many sentences, the most similar first")
