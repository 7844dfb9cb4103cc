"""`evaluate`: a trained model on any data that fits its task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from orchard.app.members import find_members
from orchard.data.kinds import kind_named
from orchard.data.settings import Source
from orchard.errors import UsageError
from orchard.given import Given
from orchard.tasks.record import Task
from orchard.training.settings import explain, nest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from orchard.inference.loading import Loaded


def evaluate(
    run: Path | str | Sequence[Path | str],
    source: Any,
    split: str | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    model: nn.Module | None = None,
    metrics: Mapping[str, Callable[[Tensor, Tensor], float]] | None = None,
    task: str | None = None,
) -> dict[str, Any]:
    """Metrics of the model of `run` on one split of `source`, as its task has them, and the count of its records;
    "tables" has what a task says in rows, such as the figures of each class of a detector. What a task says of its
    metrics in words, such as the judge of generated images, stands beside them by its name.

    Args:
        run: a run folder or a model's folder. Several, or a folder of folds, are evaluated as an ensemble, whose answer
            is the mean of theirs (image classification); "members" has the metrics of each.
        source: the name of a set, a path, or a Python object, as `train` takes it.
        split: which split; without one it is the test, and of a set without splits all of it.
        settings: those of the data, such as {"bad_records": "skip"}, and `evaluation.*` where the task has such
            (`generation.*` of generated images).
        model: your own module, where the run is of one; it is filled.
        metrics: your own beside the task's, as `train` takes them.
        task: another task that the model answers, such as "image-feature-extraction" of a classifier.

    Raises UsageError for a setting or a split that there is not, OrchardError for data that the model cannot be asked
    about.
    """
    record, paths, _ = find_members(run, task)
    if model is not None and len(paths) > 1:
        raise UsageError("a module of your own is filled by one run; leave out model=, or name one run")
    if metrics and not record.own_metrics:
        raise UsageError(
            f"{paths[0]} is for {record.name}, which computes no metrics beside its own; leave out metrics="
        )
    place = source if isinstance(source, str) else kind_named(record.data).take(source)
    name = place.source if isinstance(place, Given) else place
    prefix = f"{record.evaluation_key}."
    how = {key: value for key, value in (settings or {}).items() if record.evaluation and key.startswith(prefix)}
    data = source_settings(record, name, {key: value for key, value in (settings or {}).items() if key not in how})
    own: dict[str, Any] = {"metrics": metrics} if metrics else {}
    if record.evaluation:
        own["evaluation"] = evaluation_settings(record, how)
    if isinstance(place, str):
        kind_named(record.data).require(place)
    from orchard.inference.loading import load
    from orchard.tasks.base import warn

    loaded: list[Loaded] = [load(path, model) for path in paths]
    data = data.for_evaluation(whole=split is None and "test_fraction" not in data.model_fields_set)
    split = split or "test"
    others = {"others": loaded[1:]} if len(loaded) > 1 else {}
    found = record.load(record.evaluate)(loaded[0], place, split, data, **own, **others)
    count, learned = found.pop("count"), found.pop("learned", 0)
    members, tables, about = found.pop("members", None), found.pop("tables", None), found.pop("about", {})
    each = dict(zip(map(str, paths), members, strict=True)) if members else {}
    if learned:
        who = "these models have" if each else "the model has"
        warn(f"{who} learned from {learned:,} of these records; what is made of them says nothing of others")
    names = ", ".join(dict.fromkeys(one.name for one in loaded))
    table = {"model": names, "task": record.name, "data": name, "count": count, **about, split: found}
    return {**table, **({"members": each} if each else {}), **({"tables": tables} if tables else {})}


def evaluation_settings(task: Task, given: Mapping[str, Any]) -> BaseModel:
    """How a model of this task is judged, from settings whose names begin with "evaluation.", or the task's own key."""
    kind: type[BaseModel] = task.load(str(task.evaluation))
    prefix = f"{task.evaluation_key}."
    try:
        return kind.model_validate({key.removeprefix(prefix): value for key, value in given.items()})
    except ValidationError as error:
        raise UsageError(explain(error, kind).replace("setting '", f"setting '{prefix}", 1)) from None


def source_settings(task: Task, source: str, settings: Mapping[str, Any]) -> Source:
    """Settings of a task's data by their dotted names, with or without "data." before them."""
    kind: type[Source] = task.load(task.settings).model_fields["data"].annotation
    table = nest({key.removeprefix("data."): value for key, value in settings.items()})
    try:
        return kind.model_validate({"source": source, **table})
    except ValidationError as error:
        raise UsageError(explain(error, kind).replace("setting '", "setting 'data.", 1)) from None
