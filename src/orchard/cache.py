"""Where a person's machine keeps what can be made again: indexes, codes of pictures, compiled models."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """The folder for one kind of things, which may not be there yet: in $ORCHARD_CACHE, else in the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ORCHARD_CACHE") or Path(home) / "orchard") / kind
