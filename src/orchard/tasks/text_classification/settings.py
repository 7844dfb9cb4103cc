"""Settings of text classification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from orchard.data.settings import TOKENIZERS, LabelledTextSource, TextSettings, TokenizerName
from orchard.data.settings import Settings as Strict
from orchard.tasks.image_classification.settings import LabelSettings


class EncodedTextSettings(TextSettings):
    """How texts become what a text encoder reads."""

    tokenizer: TokenizerName = Field("wordpiece", description=TOKENIZERS)
    vocabulary: int = Field(8000, ge=16, description="tokens of a tokenizer that is learned from the training texts")
    length: int = Field(128, ge=4, description="tokens of a text with its special tokens; longer ones are cut")


class Settings(LabelSettings):
    """What training a classifier of texts may be told beside what all trainings are."""

    fine_tuning: ClassVar[Mapping[str, Any]] = {
        "epochs": 4,
        "clip_norm": 1.0,
        "optimizer.name": "adamw",
        "optimizer.lr": 1e-4,
        "optimizer.weight_decay": 0.01,
        "schedule.name": "linear",
        "schedule.warmup_epochs": 0.4,
    }

    data: LabelledTextSource
    text: EncodedTextSettings = Field(default_factory=EncodedTextSettings)


class Options(Strict):
    """How a classifier of texts answers."""

    top: int = Field(5, ge=1, description="how many classes to name")
    pair: str | None = Field(None, description="the second text, of a model that has learned pairs")
    data: str | None = Field(
        None, description="a table (.csv, .tsv, .jsonl, .parquet) or a .txt file with a text a line, to be answered"
    )
