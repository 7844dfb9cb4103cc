"""Settings of zero-shot classification."""

from __future__ import annotations

from pydantic import Field

from orchard.data.settings import LabelledTextSource
from orchard.data.settings import Settings as Strict
from orchard.training.settings import TrainSettings


class Settings(TrainSettings):
    """The data that answers are judged on."""

    data: LabelledTextSource


class EvaluationSettings(Strict):
    """What a text is asked."""

    template: str = Field("This text is about {}.", description="the second text, with {} for the class")


class Options(EvaluationSettings):
    """What a text is asked."""

    labels: tuple[str, ...] = Field((), description="a class that a text may be (again for each)")
    several: bool = Field(False, description="any number of the classes may be right, each judged by itself")
