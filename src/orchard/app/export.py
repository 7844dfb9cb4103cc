"""`export`: a trained model for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchard.errors import UsageError
from orchard.tasks.registry import task_named
from orchard.weights.folders import require_model

if TYPE_CHECKING:
    from torch import nn

    from orchard.inference.export import Exported
    from orchard.inference.loading import Loaded


def export(
    run: Path | str | Loaded, kind: str, path: Path | None = None, *, model: nn.Module | None = None
) -> list[Exported]:
    """Write the model of a run or model folder as "onnx" or "torch" (see `orchard.inference.export`).

    Without `path` it is written beside the weights. `model` is your own module, where the run is of one. Raises
    UsageError for a model that cannot be exported, OrchardError for a file that cannot be written or differs from the
    model.
    """
    if isinstance(run, (str, Path)):
        require_model(Path(run))
    from orchard.inference import export as files
    from orchard.inference.loading import load

    loaded = load(run, model) if isinstance(run, (str, Path)) else run
    task = task_named(loaded.task)
    if task.entries is None:
        raise UsageError(f"{loaded.folder} is for {task.name}, whose models cannot be exported")
    return files.export(loaded, task.load(task.entries)(loaded), kind, path)
