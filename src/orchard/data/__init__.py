"""Data: files and named sets into batches. Nothing is imported until it is used."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "AugmentSettings": "orchard.data.settings",
    "DataSettings": "orchard.data.settings",
    "ImageData": "orchard.data.contracts",
    "ImageSplit": "orchard.data.contracts",
    "Loader": "orchard.data.loader",
    "Preprocess": "orchard.data.contracts",
    "canonical_name": "orchard.data.kinds",
    "default_preprocess": "orchard.data.preprocess",
    "mix": "orchard.data.augment",
    "open_data": "orchard.data.sources",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'orchard.data' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
