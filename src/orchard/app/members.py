"""The models that answer together where several runs are named, and the task they share. Read without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchard.errors import UsageError
from orchard.tasks.record import Task
from orchard.tasks.registry import task_for
from orchard.weights.folders import ModelFolder, require_model, runs_of

Runs = str | Path | Sequence[str | Path]


def find_members(runs: Runs, asked: str | None = None) -> tuple[Task, list[Path], list[ModelFolder]]:
    """The task of a run or of several, their paths, and the models in them; a folder of folds is all of its runs.

    `asked` names another task that the models answer. Raises UsageError where there is no model, for one that is named
    twice, for models of different tasks, and for several of a task whose models do not answer together.
    """
    given = [runs] if isinstance(runs, str | Path) else list(runs)
    if not given:
        raise UsageError("no run is named; expected a run or model folder, or several")
    paths = [path for one in given for path in runs_of(Path(one))]
    found = [require_model(path) for path in paths]
    task = task_for(found[0], asked)
    if len(found) > 1 and not task.ensembles:
        raise UsageError(f"{found[0].folder} is for {task.name}, whose models do not answer together; name one run")
    seen: set[Path] = set()
    for one in found:
        if one.task != found[0].task:
            raise UsageError(
                f"{one.folder} is for {one.task}, {found[0].folder} for {found[0].task}; only models of one task "
                "answer together"
            )
        if one.folder.resolve() in seen:
            raise UsageError(f"{one.folder} is named twice; name each run once")
        seen.add(one.folder.resolve())
    return task, paths, found
