"""`evaluate`: a trained model on any data that fits its task."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchard.errors import UsageError
from orchard.inference.loading import Loaded, load
from orchard.training.jobs import JOBS
from orchard.training.settings import SourceSettings, nest

Evaluate = Callable[[Loaded, str, str, SourceSettings], dict[str, float]]


def evaluate(run: Path, source: str, split: str, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Figures of the model of `run` on one split of `source`, as its task has them.

    `settings` are those of the data, such as {"bad_records": "skip"}. Raises UsageError for a setting or a split that
    there is not, OrchardError for data that the model cannot be asked about.
    """
    loaded = load(run)
    data = source_settings(source, settings or {})
    figures = _evaluate_of(loaded.task)(loaded, source, split, data)
    return {"model": loaded.name, "task": loaded.task, "data": source, split: figures}


def source_settings(source: str, settings: Mapping[str, Any]) -> SourceSettings:
    """Settings of data by their dotted names, with or without "data." before them."""
    table = nest({key.removeprefix("data."): value for key, value in settings.items()})
    try:
        return SourceSettings.model_validate({"source": source, **table})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"setting 'data.{key}': {first['msg'][0].lower() + first['msg'][1:]}") from None


def _evaluate_of(task: str) -> Evaluate:
    module, _, _ = JOBS[task].partition(":")
    found: Evaluate = importlib.import_module(f"orchard.training.jobs.{module}").evaluate_loaded
    return found
