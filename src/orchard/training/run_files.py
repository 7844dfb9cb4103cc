"""The form of a run's JSON files: run.json, settings.json, metrics.json. Read without torch.

Each is read through here and nowhere else, so that a file that was cut, edited or put there by somebody else is one
line with its name. What is not listed may be there too, as simple as the listed entries are.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt, PositiveInt

Metrics = dict[str, FiniteFloat | None]  # of one split; null is what is no number, such as a mean over nothing


class DataFacts(BaseModel):
    """What is known of the data that a run learns from."""

    model_config = ConfigDict(extra="allow")

    fingerprint: str
    classes: list[str] = []


class RunFacts(BaseModel):
    """run.json, as far as a run that goes on needs it."""

    model_config = ConfigDict(extra="allow")

    requested: dict[str, Any]
    data: DataFacts
    started: str


class Setting(BaseModel):
    """A value of any type and where it came from."""

    model_config = ConfigDict(strict=True)

    value: Any
    origin: str


class ThreadsSetting(Setting):
    value: PositiveInt | None


class RunSettings(BaseModel):
    """settings.json: dotted keys, of which only the threads mean something to a run that goes on."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, Setting]

    threads: ThreadsSetting = ThreadsSetting(value=None, origin="default")

    def rows(self) -> dict[str, Setting]:
        """Every setting that the file has; the threads come first, else in the order of the file."""
        return {name: row for name, row in self if name in self.model_fields_set}


class RunMetrics(BaseModel):
    """metrics.json: the final metrics by split, and what the training and the model cost."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, FiniteFloat | str | Metrics | None]

    model: str
    task: str
    data: str
    parameters: NonNegativeInt
    steps: NonNegativeInt
    epochs: FiniteFloat = Field(ge=0)
    best_step: int
    stopped: str
    seconds: FiniteFloat = Field(ge=0)
    macs: NonNegativeInt
    size_bytes: NonNegativeInt
    validation: Metrics
    test: Metrics | None = None

    @property
    def report_split(self) -> str:
        """The split that the report is about."""
        return "validation" if self.test is None else "test"

    @property
    def reported(self) -> dict[str, float]:
        """The metrics of that split; NaN where the file has null."""
        found = self.validation if self.test is None else self.test
        return {name: math.nan if value is None else value for name, value in found.items()}

    def table(self) -> dict[str, Any]:
        """All of it, as the file has it."""
        return self.model_dump(exclude_unset=True)
