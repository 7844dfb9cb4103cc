"""Settings of text generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from orchard.data.settings import Settings as Strict
from orchard.data.settings import TextSettings, TextSource
from orchard.training.settings import SEQUENCE_FINE_TUNING, TrainSettings


class RecurrentSettings(Strict):
    """Training of models that carry a state from segment to segment."""

    varied_length: bool = Field(
        False, description="segments of varying length, each with its share of the learning rate (arXiv:1708.02182)"
    )
    activation_regularization: float = Field(
        0.0, ge=0, description="weight of the mean square of the last layer's outputs (AR, arXiv:1708.01009)"
    )
    temporal_regularization: float = Field(
        0.0, ge=0, description="weight of the mean square of their change from token to token (TAR)"
    )
    nt_asgd: int | None = Field(
        None, gt=0, description="average the weights once a validation loss is above the best of all but this many "
        "before it (NT-ASGD)",
    )  # fmt: skip


class Settings(TrainSettings):
    """What training a language model may be told beside what all trainings are."""

    fine_tuning: ClassVar[Mapping[str, Any]] = SEQUENCE_FINE_TUNING

    data: TextSource
    text: TextSettings = Field(default_factory=TextSettings)
    recurrent: RecurrentSettings = Field(
        default_factory=RecurrentSettings, description="of models that carry a state from segment to segment"
    )


class SamplingOptions(Strict):
    """How tokens are sampled."""

    temperature: float | None = Field(None, ge=0, lt=1e6, description="sampling temperature; 0 is greedy; default: 1")
    top_k: int | None = Field(None, ge=0, description="top-k sampling; 0 disables it")
    top_p: float | None = Field(None, gt=0, le=1, description="top-p (nucleus) sampling")


class Options(SamplingOptions):
    """How a language model answers."""

    count: int = Field(1, ge=1, description="texts for each prompt")
    seed: int = Field(0, ge=0, lt=2**31, description="random seed; the same seed writes the same")
    length: int = Field(200, ge=1, description="tokens of a text at most")
    stop: tuple[str, ...] = Field((), description="a text ends before this word")
    repetition_penalty: float = Field(1.0, gt=0, lt=1e6, description="repetition penalty; 1 is off")
    precision: Literal["auto", "fp32", "bf16", "int8"] = Field("auto", description="arithmetic of the decoder")
