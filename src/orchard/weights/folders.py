"""What a run or model folder holds, known without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from orchard.errors import OrchardError, UsageError

CONFIG = "config.json"


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk: its folder, its variant and its task."""

    folder: Path
    model: str
    task: str


def find_model(path: Path) -> ModelFolder | None:
    """The model in a run or model folder; None where there is no readable one."""
    for folder in (path / "model", path):
        try:
            table = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            return ModelFolder(folder, str(table["model"]), str(table["task"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def require_model(path: Path) -> ModelFolder:
    """The model in a run or model folder.

    Raises UsageError where there is none, OrchardError for a run without a model yet and for a damaged description.
    """
    found = find_model(path)
    if found:
        return found
    for folder in (path / "model", path):
        if (folder / CONFIG).exists():
            raise OrchardError(
                f"{folder / CONFIG} is not a model's description; expected what a training or import writes"
            )
    if (path / "run.json").exists():
        raise OrchardError(f"{path} has no model yet: its training is not finished; the same train command resumes it")
    raise UsageError(f"{path} is neither a run nor a model's folder (no model/{CONFIG} and no {CONFIG} in it)")


def model_folder(path: Path) -> Path:
    """Where the portable model of a run lies: in its `model` folder, or it is the folder itself."""
    return require_model(path).folder
