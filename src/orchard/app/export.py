"""`export`: a trained model for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchard.errors import UsageError
from orchard.tasks.registry import task_named, task_names
from orchard.weights.folders import require_model

if TYPE_CHECKING:
    from torch import nn

    from orchard.inference.export import Exported
    from orchard.inference.loading import Loaded


def export(
    run: Path | str | Loaded,
    kind: str,
    path: Path | None = None,
    *,
    with_preprocessing: bool = False,
    model: nn.Module | None = None,
) -> list[Exported]:
    """Write the model of a run or model folder as "onnx" or "torch" (see `orchard.inference.export`).

    Without `path` it is written beside the weights. `with_preprocessing` puts into the file what happens to an image
    before the model and to its answer after it. `model` is your own module, where the run is of one. Raises UsageError
    for a model that cannot be exported so, OrchardError for a file that cannot be written or differs from the model.
    """
    if isinstance(run, (str, Path)):
        require_model(Path(run))
    from orchard.inference import export as files
    from orchard.inference.loading import load

    loaded = load(run, model) if isinstance(run, (str, Path)) else run
    task = task_named(loaded.task)
    if task.entries is None:
        raise UsageError(f"{loaded.folder} is for {task.name}, whose models cannot be exported")
    if with_preprocessing and task.pixel_entries is None:
        able = ", ".join(name for name in task_names() if task_named(name).pixel_entries)
        raise UsageError(f"{loaded.folder} is for {task.name}; --with-preprocessing is for {able}: leave it out")
    entries = task.pixel_entries if with_preprocessing else task.entries
    return files.export(loaded, task.load(str(entries))(loaded), kind, path)
