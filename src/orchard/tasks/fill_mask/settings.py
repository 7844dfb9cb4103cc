"""Settings of masked language modelling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from orchard.data.settings import TOKENIZERS, TextSettings, TextSource, TokenizerName
from orchard.data.settings import Settings as Strict
from orchard.training.settings import SEQUENCE_FINE_TUNING, TrainSettings


class MaskedTextSettings(TextSettings):
    """How text becomes tokens, and how many are read at once."""

    tokenizer: TokenizerName = Field("wordpiece", description=TOKENIZERS)
    vocabulary: int = Field(4096, ge=300, description="tokens of one that is learned from the training text")
    length: int = Field(128, ge=8, description="tokens that are read at once, the special ones included")


class MaskingSettings(Strict):
    """Which tokens are hidden."""

    share: float = Field(0.15, gt=0, lt=1, description="share of the tokens that are asked about")
    masked: float = Field(0.8, ge=0, le=1, description="share of these that becomes the mask")
    changed: float = Field(0.1, ge=0, le=1, description="share of these that becomes any token; the rest stays")
    whole_words: bool = Field(False, description="hide all pieces of a word together")
    ngram: int = Field(1, ge=1, le=10, description="words side by side that may be hidden together, n with 1/n")


class Settings(TrainSettings):
    """What training on hidden words may be told beside what all trainings are."""

    fine_tuning: ClassVar[Mapping[str, Any]] = SEQUENCE_FINE_TUNING

    data: TextSource
    text: MaskedTextSettings = Field(default_factory=MaskedTextSettings)
    masking: MaskingSettings = Field(default_factory=MaskingSettings)


class Options(Strict):
    """How hidden words are answered."""

    top: int = Field(5, ge=1, le=1000, description="words for each [MASK]")
    steps: int = Field(0, ge=0, description="draws by which all [MASK] of a text are filled in together; 0: each alone")
    top_k: int = Field(100, ge=0, description="draws of the second half are among so many tokens; 0: the likeliest")
    temperature: float = Field(1.0, gt=0, lt=1e6, description="sampling temperature of the draws")
    count: int = Field(1, ge=1, le=1000, description="texts that are drawn")
    seed: int = Field(0, ge=0, lt=2**31, description="random seed of the draws")
