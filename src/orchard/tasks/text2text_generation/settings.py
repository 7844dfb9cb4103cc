"""Settings of text-to-text generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from orchard.data.settings import TOKENIZERS, TextPairSource, TextSettings, TokenizerName
from orchard.data.settings import Settings as Strict
from orchard.tasks.text_generation.settings import SamplingOptions
from orchard.training.settings import SEQUENCE_FINE_TUNING, TrainSettings


class PairTextSettings(TextSettings):
    """How both texts of a pair become tokens of one vocabulary."""

    tokenizer: TokenizerName = Field("bpe", description=TOKENIZERS)
    vocabulary: int = Field(4000, ge=259, description="tokens of one that is learned from sources and targets together")
    length: int = Field(64, ge=2, description="tokens of a text, its end included; longer ones are cut")


class SearchSettings(Strict):
    """How texts are written."""

    beam: int = Field(4, ge=1, description="hypotheses of a beam search; 1 is greedy")
    length_penalty: float = Field(0.6, ge=0, description="alpha of the length penalty (arXiv:1609.08144, equation 14)")


class Settings(TrainSettings):
    """What training on text in pairs may be told beside what all trainings are."""

    fine_tuning: ClassVar[Mapping[str, Any]] = SEQUENCE_FINE_TUNING

    data: TextPairSource
    text: PairTextSettings = Field(default_factory=PairTextSettings)
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of a target spread over the whole vocabulary")
    search: SearchSettings = Field(default_factory=SearchSettings)


class Options(SearchSettings, SamplingOptions):
    """How a model that reads one text and writes another answers."""

    count: int = Field(1, ge=1, description="texts for each source: the best of the beam, or samples")
    seed: int = Field(0, ge=0, lt=2**31, description="random seed of samples")
