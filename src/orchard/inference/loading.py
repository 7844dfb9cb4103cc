"""A trained model, ready to answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from orchard.data.contracts import Preprocess
from orchard.errors import OrchardError
from orchard.weights.folders import model_folder
from orchard.weights.portable import CONFIG, load_portable


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode and what one must know to use it."""

    name: str  # of the variant
    model: nn.Module
    classes: tuple[str, ...]
    preprocess: Preprocess | None  # none where the model is given no pictures
    task: str
    folder: Path  # the portable model it was read from
    facts: Mapping[str, Any]  # what else its task must know (`Portable.facts`)

    @property
    def pictures(self) -> Preprocess:
        """How pictures come to the model; OrchardError for a model that is given none."""
        if self.preprocess is None:
            raise OrchardError(f"{self.folder}: {self.name} ({self.task}) is given no pictures")
        return self.preprocess


def load(path: str | Path) -> Loaded:
    """The model of a run folder or of a portable model's folder.

    Raises UsageError where there is neither, OrchardError for a run without a model yet and for damaged files.
    """
    about, model = load_portable(model_folder(Path(path)))
    classes = getattr(model.config, "num_classes", 0)
    if len(about.classes) != classes:
        raise OrchardError(f"{path}: {CONFIG} names {len(about.classes)} classes, the model has {classes}")
    folder = model_folder(Path(path))
    try:
        preprocess = Preprocess.from_json(about.preprocess) if about.preprocess else None
    except OrchardError as error:
        raise OrchardError(f"{folder / CONFIG}: {error}") from None
    return Loaded(about.model, model, about.classes, preprocess, about.task, folder, about.facts)
