"""`play`: a person against a trained model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchard.app.answer import read_options
from orchard.errors import UsageError
from orchard.tasks.registry import task_named, task_names
from orchard.weights.folders import require_model


def play(
    run: Path | str,
    ask: Callable[[str], str],
    show: Callable[[str], None],
    *,
    second: bool = False,
    position: str = "",
    options: Mapping[str, Any] | None = None,
) -> str:
    """Play one game against the model of `run`; how it ended, in words.

    Args:
        run: a run folder or a model's folder, of a model that plays.
        ask: is given a prompt and gives back a line of the person's.
        show: is given lines for the person.
        second: the model moves first.
        position: begins there, as `predict` takes positions.
        options: those of the model's task, such as {"simulations": 400}.

    Raises UsageError for a model that does not play, an unknown option or what is no position.
    """
    found = require_model(Path(run))
    task = task_named(found.task)
    if task.play is None:
        able = ", ".join(name for name in task_names() if task_named(name).play)
        raise UsageError(f"{found.folder} is for {task.name}; one can play against models for {able}")
    chosen = read_options(task, options or {})
    ended: str = task.load(task.play)(found.folder, chosen, ask, show, second=second, position=position)
    return ended
