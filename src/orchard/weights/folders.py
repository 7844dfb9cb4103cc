"""What a run or model folder holds, known without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from orchard.errors import OrchardError, UsageError
from orchard.files import read_as

CONFIG = "config.json"
WEIGHTS, ENCODED = "model.safetensors", "model.dc"  # the second as Deep Compression stores weights


class Description(BaseModel):
    """The config.json of a model's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1, max_length=200)
    architecture: dict[str, Any]
    task: str = Field(min_length=1, max_length=200)
    classes: tuple[str, ...] = ()
    preprocess: dict[str, Any] = {}
    origin: str = ""
    facts: dict[str, Any] = {}
    pruned: dict[str, list[int | None]] = {}


def read_description(folder: Path) -> Description:
    """What a model's folder says of itself; OrchardError names the key of config.json that is not of its form."""
    if not (folder / CONFIG).exists():
        raise OrchardError(f"{folder} is no Orchard model: it has no {CONFIG}")
    return read_as(folder / CONFIG, Description)


def weights_file(folder: Path) -> Path:
    """The file of a model's weights: encoded ones where there are no others."""
    encoded = folder / ENCODED
    return encoded if encoded.exists() and not (folder / WEIGHTS).exists() else folder / WEIGHTS


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
            about = read_description(folder)
            return ModelFolder(folder, about.model, about.task)
        except OrchardError:
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
            read_description(folder)  # says what is wrong with it
    if (path / "run.json").exists():
        raise OrchardError(f"{path} has no model yet: its training is not finished; the same train command resumes it")
    raise UsageError(f"{path} is neither a run nor a model's folder (no model/{CONFIG} and no {CONFIG} in it)")


def model_folder(path: Path) -> Path:
    """Where the portable model of a run lies: in its `model` folder, or it is the folder itself."""
    return require_model(path).folder
