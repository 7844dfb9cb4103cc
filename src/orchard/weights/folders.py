"""What a run or model folder holds, known without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from orchard.errors import OrchardError, UsageError
from orchard.files import read_as

CONFIG = "config.json"
WEIGHTS, ENCODED = "model.safetensors", "model.dc"  # the second as Deep Compression stores weights
FOLDS = "folds.json"  # in the folder of a cross-validation's runs, written when all are trained


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


class Folds(BaseModel):
    """folds.json, as far as its runs are named."""

    model_config = ConfigDict(extra="allow", frozen=True)

    runs: tuple[Annotated[str, Field(pattern=r"^fold-\d+$")], ...] = Field(min_length=2)


def fold_folder(path: Path, number: int) -> Path:
    """The run of one fold, from 0, in the folder of a cross-validation."""
    return path / f"fold-{number}"


def runs_of(path: Path) -> list[Path]:
    """The runs of a folder of folds; of any other path itself.

    Raises OrchardError for folds that are not all trained.
    """
    if (path / FOLDS).exists():
        return [path / run for run in read_as(path / FOLDS, Folds).runs]
    if fold_folder(path, 0).is_dir():
        raise OrchardError(f"{path}: its folds are not all trained yet; the same train command resumes them")
    return [path]


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
