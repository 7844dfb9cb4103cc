"""Where a training stands, and how it ends before its last step."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from orchard.errors import OrchardError, first_line
from orchard.training.renamed import STATE


@dataclass
class State:
    """Where a training stands; saved as JSON with every checkpoint."""

    step: int = 0
    seconds: float = 0.0
    best_score: float = -math.inf  # of the selection metric, its sign turned where smaller is better
    best_step: int = -1
    stale_epochs: int = 0
    stopped: str = ""  # why training ended before its last step
    sums: dict[str, float] = field(default_factory=dict)  # of the log line that is being gathered
    counted: int = 0

    def facts(self) -> dict[str, Any]:
        """As JSON has it, which knows no infinity."""
        return asdict(self) | {"best_score": self.best_score if math.isfinite(self.best_score) else None}

    @classmethod
    def read(cls, facts: Mapping[str, Any], where: Path) -> State:
        """The inverse of `facts`. OrchardError where any is missing: the weights would be trained on from step 0."""
        found = {STATE.get(key, key): value for key, value in facts.items()}
        if found.get("best_score", 0) is None:
            found["best_score"] = -math.inf
        names = {one.name for one in fields(cls)}
        try:
            if found.keys() != names:
                raise ValueError(f"expected {', '.join(sorted(names))}")
            return TypeAdapter(cls).validate_python(found)
        except ValueError as error:
            raise OrchardError(
                f"the facts in the newest checkpoint in {where} are not of the form that is written: "
                f"{first_line(error)}; remove that checkpoint to go on from the one before it"
            ) from None


class Interrupted(OrchardError):
    """Ctrl-C or another signal came; everything is saved. The exit code is the one that shells give to it."""

    def __init__(self, message: str, number: int = signal.SIGINT):
        super().__init__(message)
        self.exit_code = 128 + number


class DivergedError(OrchardError):
    """The loss is no longer a number."""
