"""A trained model ready for its task, whatever that is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.errors import UsageError
from orchard.tasks.registry import task_for, task_named
from orchard.weights.folders import require_model

if TYPE_CHECKING:
    from torch import nn


def pipeline(task_or_run: str | Path, model: str | Path | nn.Module | None = None, **options: Any) -> Any:
    """What answers for a run or a model's folder: `pipeline(RUN)` or `pipeline("text-to-image", RUN)`.

    An object of the model's task, which is called with what the task takes: a classifier of images with an image or a
    list of them, each a path, bytes, a PIL image, an array or a tensor; `transform(image)` of it gives the tensor that
    its model takes. `options` are those of its class. A run of a module of your own takes that module, too:
    `pipeline(RUN, module)`. A classifier also gives features: `pipeline("image-feature-extraction", RUN)`. Raises
    UsageError for a task nobody knows and for a model of another one.
    """
    module = None
    if model is not None and not isinstance(model, str | Path):
        module, model = model, None
    wanted = None if model is None else task_named(str(task_or_run)).name
    found = require_model(Path(task_or_run if model is None else model))
    task = task_for(found, wanted)
    if task.pipeline is None:
        raise UsageError(f"{found.folder} is for {task.name}, which has no pipeline")
    from orchard.inference.loading import load

    return task.load(task.pipeline)(load(found.folder, module), **options)
