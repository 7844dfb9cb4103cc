"""Which tasks there are: the folders beside this file. Read without torch."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.cards import FOREIGN, card_of
from orchard.data.kinds import kind_named
from orchard.errors import UsageError, unknown
from orchard.tasks.record import Task

if TYPE_CHECKING:
    from orchard.weights.folders import ModelFolder

CLASSIFIERS = "image-classification"  # what models of other libraries are


@functools.cache
def task_names() -> tuple[str, ...]:
    """The names of all tasks."""
    here = Path(__file__).parent
    return tuple(sorted(path.parent.name.replace("_", "-") for path in here.glob("*/__init__.py")))


@functools.cache
def task_named(name: str) -> Task:
    """The record of a task; UsageError with the nearest known names where there is none."""
    if name not in task_names():
        raise unknown("task", name, task_names())
    task: Task = importlib.import_module(f"orchard.tasks.{name.replace('-', '_')}").TASK
    return task


def task_of(model: str) -> Task:
    """The task that a variant, a landmark or another library's model is for."""
    return task_named(CLASSIFIERS if model.startswith(FOREIGN) else card_of(model).task)


def task_learned(model: str, data: Any, wanted: str | None = None) -> Task:
    """The task that a model learns from some data: the one that is asked for, else, of those in its card, the first
    whose kind of data these are, else its own.

    Raises UsageError for a task that the model does not learn.
    """
    own = task_of(model)
    names = () if model.startswith(FOREIGN) else card_of(model).tasks
    if wanted is not None:
        if wanted not in (own.name, *names):
            raise UsageError(f"{model} does not learn {wanted}; it learns {', '.join((own.name, *names))}")
        return task_named(wanted)
    return next((task for task in map(task_named, names) if kind_named(task.data).is_of(data)), own)


def task_for(found: ModelFolder, wanted: str | None) -> Task:
    """The task of a trained model, or the one that is asked of it; UsageError for one that it cannot answer."""
    own = task_named(found.task)
    task = task_named(wanted) if wanted else own
    if task is not own and found.task not in task.models_of:
        raise UsageError(f"{found.folder} is for {own.name}, not for {task.name}")
    return task
