"""Settings of text to image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from orchard.data.settings import CaptionSource, TextSettings
from orchard.tasks.text_generation.settings import SamplingOptions
from orchard.training.settings import SEQUENCE_FINE_TUNING, TrainSettings


class CaptionTextSettings(TextSettings):
    """How captions become tokens."""

    length: int | None = Field(  # type: ignore[assignment]
        None, ge=1, description="tokens of a caption; longer ones are cut; default: chosen from the training captions"
    )


class Settings(TrainSettings):
    """What training a text-to-image model may be told beside what all trainings are."""

    fine_tuning: ClassVar[Mapping[str, Any]] = SEQUENCE_FINE_TUNING

    data: CaptionSource
    tokenizer: str | None = Field(
        None, description="run or model folder of the image tokenizer whose codes are learned"
    )
    text: CaptionTextSettings = Field(default_factory=CaptionTextSettings)


class Options(SamplingOptions):
    """How a text-to-image model answers."""

    count: int = Field(1, ge=1, description="images for each prompt")
    seed: int = Field(0, ge=0, lt=2**31, description="random seed; the same seed gives the same image")
    data: Path | None = Field(None, description="a TSV of idx and text instead of prompts; --out is a TSV then")
    out: Path | None = Field(None, description="folder for the images (or the TSV of --data)")
    complete: Path | None = Field(None, description="complete the image whose upper part is in this file")
    text: str | None = Field(None, description="the prompt for --complete")
    clip: Path | None = Field(None, description="run or model folder of a CLIP that ranks the candidates")
    set: dict[str, Any] = Field(default_factory=dict, description="settings of --data, such as data.bad_records=skip")
    precision: Literal["auto", "fp32", "bf16", "int8"] = Field("auto", description="arithmetic of the decoder")
