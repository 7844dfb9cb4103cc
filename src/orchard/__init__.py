"""Orchard: the landmark systems of deep learning, from one small set of parts, on your own data.

The words here are those of the command line. Nothing is imported until it is used.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "create_model": "orchard.models",
    "train": "orchard.app.train",
    "evaluate": "orchard.app.evaluate",
    "compare": "orchard.app.compare",
    "load": "orchard.inference.loading",
    "pipeline": "orchard.app.pipeline",
    "verify": "orchard.weights.proof",
    "export": "orchard.app.export",
    "bench": "orchard.app.bench",
    "load_official": "orchard.weights.official",
    "export_official": "orchard.weights.official",
    "import_official": "orchard.weights.official",
    "open_data": "orchard.data",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'orchard' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
