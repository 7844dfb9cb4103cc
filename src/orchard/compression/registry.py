"""Which compression methods there are: the folders beside this file. Read without torch."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

from orchard.compression.record import Method
from orchard.errors import unknown


@functools.cache
def method_names() -> tuple[str, ...]:
    """The names of all methods."""
    here = Path(__file__).parent
    return tuple(sorted(path.parent.name.replace("_", "-") for path in here.glob("*/__init__.py")))


@functools.cache
def method_named(name: str) -> Method:
    """The record of a method; UsageError with the nearest known names where there is none."""
    if name not in method_names():
        raise unknown("method", name, method_names())
    method: Method = importlib.import_module(f"orchard.compression.{name.replace('-', '_')}").METHOD
    return method
