"""`evaluate`: a trained model on any data that fits its task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchard.data.kinds import kind_named
from orchard.data.settings import Source
from orchard.errors import UsageError
from orchard.tasks.record import Task
from orchard.tasks.registry import task_named
from orchard.training.settings import explain, nest
from orchard.weights.folders import require_model

if TYPE_CHECKING:
    from orchard.inference.loading import Loaded


def evaluate(
    run: Path | str, source: str, split: str | None = None, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Metrics of the model of `run` on one split of `source`, as its task has them, and the count of its records.

    Without a `split` it is the test; of a set without splits that is all of it, with one the part that a training holds
    out.
    `settings` are those of the data, such as {"bad_records": "skip"}. Raises UsageError for a setting or a split that
    there is not, OrchardError for data that the model cannot be asked about.
    """
    task = task_named(require_model(Path(run)).task)
    data = source_settings(task, source, settings or {})
    kind_named(task.data).require(source)
    from orchard.inference.loading import load
    from orchard.tasks.base import warn

    loaded: Loaded = load(run)
    data = data.for_evaluation(whole=split is None and "test_fraction" not in data.model_fields_set)
    split = split or "test"
    metrics = task.load(task.evaluate)(loaded, source, split, data)
    count, learned = metrics.pop("count"), metrics.pop("learned", 0)
    if learned:
        warn(f"the model has learned from {learned:,} of these records; what it makes of them says nothing of others")
    return {"model": loaded.name, "task": loaded.task, "data": source, "count": count, split: metrics}


def source_settings(task: Task, source: str, settings: Mapping[str, Any]) -> Source:
    """Settings of a task's data by their dotted names, with or without "data." before them."""
    kind: type[Source] = task.load(task.settings).model_fields["data"].annotation
    table = nest({key.removeprefix("data."): value for key, value in settings.items()})
    try:
        return kind.model_validate({"source": source, **table})
    except ValidationError as error:
        raise UsageError(explain(error, kind).replace("setting '", "setting 'data.", 1)) from None
