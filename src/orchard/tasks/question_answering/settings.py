"""Settings of question answering."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from orchard.data.settings import TOKENIZERS, QuestionSource, TextSettings, TokenizerName
from orchard.data.settings import Settings as Strict
from orchard.training.settings import SEQUENCE_FINE_TUNING, TrainSettings


class QuestionTextSettings(TextSettings):
    """How questions and texts become tokens."""

    tokenizer: TokenizerName = Field("bpe", description=TOKENIZERS)
    vocabulary: int = Field(4000, ge=262, description="tokens of a tokenizer that is learned from questions and texts")
    length: int = Field(384, ge=16, description="tokens of question and text; longer texts are read in windows")
    overlap: int = Field(64, ge=0, description="tokens that two windows of a text have in common")


class SpanSettings(Strict):
    """Which parts of a text can be answers."""

    longest: int = Field(30, ge=1, description="tokens of an answer at most")
    threshold: float = Field(
        0.0, description="by how many logits the best answer has to beat no answer; of models that learned "
        "questions without answers",
    )  # fmt: skip


class Settings(TrainSettings):
    """What training on questions may be told beside what all trainings are."""

    fine_tuning: ClassVar[Mapping[str, Any]] = SEQUENCE_FINE_TUNING

    data: QuestionSource
    text: QuestionTextSettings = Field(default_factory=QuestionTextSettings)
    answers: SpanSettings = Field(default_factory=SpanSettings)


class Options(SpanSettings):
    """How a model that answers questions answers."""

    context: str | None = Field(None, description="the text that answers the questions: a file, or the text itself")
