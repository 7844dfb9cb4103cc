"""Which tasks there are: the folders beside this file. Read without torch."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

from orchard.cards import FOREIGN, card_of
from orchard.errors import unknown
from orchard.tasks.record import Task

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
