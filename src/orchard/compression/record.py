"""The record of a compression method: all that verb, help and documentation need. Read without torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Method:
    """A way to make a trained model smaller.

    The others are places, `module:name`, in the method's folder: `settings` a pydantic model of its own settings,
    `run` the function `(Subject, settings) -> Compressed` that does it. `training` (dotted keys) is what suits its
    retraining, over what the run was trained with; its learning rate is `learning_rate` of the run's.
    """

    name: str
    summary: str  # one line for `orchard compress --help` and the docs
    settings: str = "settings:Settings"
    run: str = "run:run"
    training: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float = 1.0

    @property
    def folder(self) -> str:
        """The package of the method."""
        return f"orchard.compression.{self.name.replace('-', '_')}"

    def load(self, place: str) -> Any:
        """What stands at `module:name` in the method's folder."""
        module, _, name = place.partition(":")
        return getattr(importlib.import_module(f"{self.folder}.{module}"), name)
