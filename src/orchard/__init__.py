"""Orchard: the landmark systems of deep learning, from one small set of parts, on your own data.

The words here are those of the command line. Nothing is imported until it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers
    from orchard.app.bench import bench as bench
    from orchard.app.compare import Budget as Budget
    from orchard.app.compare import compare as compare
    from orchard.app.compress import compress as compress
    from orchard.app.evaluate import evaluate as evaluate
    from orchard.app.explain import explain as explain
    from orchard.app.export import export as export
    from orchard.app.find_lr import find_lr as find_lr
    from orchard.app.folds import train_folds as train_folds
    from orchard.app.pipeline import pipeline as pipeline
    from orchard.app.train import train as train
    from orchard.data.sources import open_data as open_data
    from orchard.errors import OrchardError as OrchardError
    from orchard.errors import UsageError as UsageError
    from orchard.inference.loading import Loaded as Loaded
    from orchard.inference.loading import load as load
    from orchard.models import create_model as create_model
    from orchard.training.callbacks import Callback as Callback
    from orchard.training.callbacks import Moment as Moment
    from orchard.training.callbacks import StopTraining as StopTraining
    from orchard.weights.official import export_official as export_official
    from orchard.weights.official import import_official as import_official
    from orchard.weights.official import load_official as load_official
    from orchard.weights.proof import verify as verify

_HOMES = {
    "create_model": "orchard.models",
    "train": "orchard.app.train",
    "find_lr": "orchard.app.find_lr",
    "train_folds": "orchard.app.folds",
    "evaluate": "orchard.app.evaluate",
    "compare": "orchard.app.compare",
    "Budget": "orchard.app.compare",
    "compress": "orchard.app.compress",
    "load": "orchard.inference.loading",
    "Loaded": "orchard.inference.loading",
    "pipeline": "orchard.app.pipeline",
    "verify": "orchard.weights.proof",
    "export": "orchard.app.export",
    "explain": "orchard.app.explain",
    "bench": "orchard.app.bench",
    "open_data": "orchard.data.sources",
    "load_official": "orchard.weights.official",
    "export_official": "orchard.weights.official",
    "import_official": "orchard.weights.official",
    "Callback": "orchard.training.callbacks",
    "Moment": "orchard.training.callbacks",
    "StopTraining": "orchard.training.callbacks",
    "OrchardError": "orchard.errors",
    "UsageError": "orchard.errors",
}

__all__ = list(_HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'orchard' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
