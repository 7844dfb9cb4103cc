"""Settings of text classification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from orchard.data.settings import TOKENIZERS, LabelledTextSource, TextSettings, TokenizerName
from orchard.data.settings import Settings as Strict
from orchard.training.settings import TrainSettings


class EncodedTextSettings(TextSettings):
    """How texts become what a text encoder reads."""

    tokenizer: TokenizerName = Field("wordpiece", description=TOKENIZERS)
    vocabulary: int = Field(8000, ge=16, description="tokens of a tokenizer that is learned from the training texts")
    length: int = Field(128, ge=4, description="tokens of a text with its special tokens; longer ones are cut")


class Settings(TrainSettings):
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
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(ge=0)]] | None = Field(
        None, description="weight of each class in the loss, by its name, the others 1; balanced: as it is rare"
    )
    temperature_scaling: bool = Field(
        False, description="divide logits by what makes validation probabilities most likely (arXiv:1706.04599)"
    )


class Options(Strict):
    """How a classifier of texts answers."""

    top: int = Field(5, ge=1, description="how many classes to name")
    pair: str | None = Field(None, description="the second text, of a model that has learned pairs")
    data: str | None = Field(
        None, description="a table (.csv, .tsv, .jsonl, .parquet) or a .txt file with a text a line, to be answered"
    )
