"""From what a person wrote after --data to the set it means."""

from __future__ import annotations

from pathlib import Path

from orchard.data.contracts import DataSettings, ImageData
from orchard.data.named import NAMED, open_named
from orchard.errors import unknown


def open_data(source: str, settings: DataSettings) -> ImageData:
    """Find out what `source` is and open it: `digits`, `fashion-mnist:FOLDER`, a folder, a zip archive or a table.

    Raises UsageError if there is nothing of that name, OrchardError if what is there cannot be used.
    """
    name, _, folder = source.partition(":")
    if name in NAMED and not Path(source).exists():
        root = folder or settings.root
        return open_named(name, Path(root) if root else None, settings, source)
    raise unknown("data set", source, NAMED)


def canonical_name(source: str) -> str:
    """The name by which recipes know a source: a named set's own, "images" for anything else."""
    name = source.partition(":")[0]
    return name if name in NAMED and not Path(source).exists() else "images"
