"""`evaluate`: a trained model on any data that fits its task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from orchard.data.kinds import kind_named
from orchard.data.settings import Source
from orchard.errors import UsageError
from orchard.given import Given
from orchard.tasks.record import Task
from orchard.tasks.registry import task_for
from orchard.training.settings import explain, nest
from orchard.weights.folders import require_model

if TYPE_CHECKING:
    from torch import Tensor, nn

    from orchard.inference.loading import Loaded


EVALUATION = "evaluation."  # what settings of how a model is judged begin with


def evaluate(
    run: Path | str,
    source: Any,
    split: str | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    model: nn.Module | None = None,
    metrics: Mapping[str, Callable[[Tensor, Tensor], float]] | None = None,
    task: str | None = None,
) -> dict[str, Any]:
    """Metrics of the model of `run` on one split of `source`, as its task has them, and the count of its records.

    Args:
        run: a run folder or a model's folder.
        source: the name of a set, a path, or a Python object, as `train` takes it.
        split: which split; without one it is the test, and of a set without splits all of it.
        settings: those of the data, such as {"bad_records": "skip"}, and `evaluation.*` where the task has such.
        model: your own module, where the run is of one; it is filled.
        metrics: your own beside the task's, as `train` takes them.
        task: another task that the model answers, such as "image-feature-extraction" of a classifier.

    Raises UsageError for a setting or a split that there is not, OrchardError for data that the model cannot be asked
    about.
    """
    record = task_for(require_model(Path(run)), task)
    if metrics and not record.own_metrics:
        raise UsageError(f"{run} is for {record.name}, which computes no metrics beside its own; leave out metrics=")
    place = source if isinstance(source, str) else kind_named(record.data).take(source)
    name = place.source if isinstance(place, Given) else place
    how = {key: value for key, value in (settings or {}).items() if record.evaluation and key.startswith(EVALUATION)}
    data = source_settings(record, name, {key: value for key, value in (settings or {}).items() if key not in how})
    own: dict[str, Any] = {"metrics": metrics} if metrics else {}
    if record.evaluation:
        own["evaluation"] = evaluation_settings(record, how)
    if isinstance(place, str):
        kind_named(record.data).require(place)
    from orchard.inference.loading import load
    from orchard.tasks.base import warn

    loaded: Loaded = load(run, model)
    data = data.for_evaluation(whole=split is None and "test_fraction" not in data.model_fields_set)
    split = split or "test"
    found = record.load(record.evaluate)(loaded, place, split, data, **own)
    count, learned = found.pop("count"), found.pop("learned", 0)
    if learned:
        warn(f"the model has learned from {learned:,} of these records; what it makes of them says nothing of others")
    return {"model": loaded.name, "task": record.name, "data": name, "count": count, split: found}


def evaluation_settings(task: Task, given: Mapping[str, Any]) -> BaseModel:
    """How a model of this task is judged, from settings whose names begin with "evaluation."."""
    kind: type[BaseModel] = task.load(str(task.evaluation))
    try:
        return kind.model_validate({key.removeprefix(EVALUATION): value for key, value in given.items()})
    except ValidationError as error:
        raise UsageError(explain(error, kind).replace("setting '", f"setting '{EVALUATION}", 1)) from None


def source_settings(task: Task, source: str, settings: Mapping[str, Any]) -> Source:
    """Settings of a task's data by their dotted names, with or without "data." before them."""
    kind: type[Source] = task.load(task.settings).model_fields["data"].annotation
    table = nest({key.removeprefix("data."): value for key, value in settings.items()})
    try:
        return kind.model_validate({"source": source, **table})
    except ValidationError as error:
        raise UsageError(explain(error, kind).replace("setting '", "setting 'data.", 1)) from None
