"""`predict` and `generate`: a trained model's answers, whatever its task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from orchard.app.members import Runs, find_members
from orchard.errors import UsageError
from orchard.inference.artifacts import Artifact
from orchard.tasks.record import Task
from orchard.training.settings import explain

Say = Callable[[str], None]


def answer(
    run: Runs,
    items: Sequence[str],
    options: Mapping[str, Any] | None = None,
    say: Say = lambda line: None,
    task_name: str | None = None,
) -> Iterator[Artifact]:
    """One answer after the other for `items` (files, prompts), by the model of a run or model folder, or by several
    together.

    `options` are those of the model's task, or of `task_name`, another one that it answers. Raises UsageError for an
    option that there is not or a model that gives no answers, before anything is loaded.
    """
    task, folders, models = find_members(run, task_name)
    if task.answer is None:
        raise UsageError(f"{models[0].folder} is for {task.name}, which answers no questions by itself")
    chosen = read_options(task, options or {})
    for folder in folders:
        if (folder / "run.json").exists() and not (folder / "report.html").exists():
            say(f"{folder} is not finished; this is by the best of its model so far")
    first, *others = (model.folder for model in models)
    more = {"others": others} if others else {}
    return task.load(task.answer)(first, items, chosen, say, **more)  # type: ignore[no-any-return]


def read_options(task: Task, options: Mapping[str, Any]) -> BaseModel:
    """A task's options from their names; UsageError for an unknown one or a wrong value."""
    kind: type[BaseModel] = task.load(task.options)
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            known = ", ".join("--" + key.replace("_", "-") for key in kind.model_fields)
            raise UsageError(f"{task.name} has no option --{name.replace('_', '-')}; it has {known}") from None
        raise UsageError(
            explain(error, kind).replace(f"setting '{name}", f"option '--{name.replace('_', '-')}")
        ) from None
