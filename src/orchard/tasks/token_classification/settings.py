"""Settings of token classification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from orchard.data.settings import TOKENIZERS, TaggedTextSource, TextSettings, TokenizerName
from orchard.data.settings import Settings as Strict
from orchard.training.settings import SEQUENCE_FINE_TUNING, TrainSettings


class WordSettings(TextSettings):
    """How words become tokens."""

    tokenizer: TokenizerName = Field("bpe", description=TOKENIZERS)
    vocabulary: int = Field(8000, ge=262, description="tokens of a tokenizer that is learned from the training text")
    length: int = Field(
        128, ge=4, description="tokens of a sentence; longer ones are read in windows that overlap by a quarter"
    )


class Settings(TrainSettings):
    """What training on tagged text may be told beside what all trainings are."""

    fine_tuning: ClassVar[Mapping[str, Any]] = SEQUENCE_FINE_TUNING

    data: TaggedTextSource
    text: WordSettings = Field(default_factory=WordSettings)


class Options(Strict):
    """How a model that tags words answers."""

    words: Literal["words", "characters", "spaces"] | None = Field(
        None, description="how a text is cut into words: words and signs, single characters, or at spaces alone; "
        "default: as the training data are",
    )  # fmt: skip
    conll: str | None = Field(None, description="write a word and its tag a line into this file, too")
