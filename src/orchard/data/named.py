"""The sets that everybody knows by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from orchard.data.contracts import DataSettings, ImageData
from orchard.data.splits import ArraySplit, array_fingerprint, hold_out


def open_named(name: str, folder: Path | None, settings: DataSettings, source: str) -> ImageData:
    """One of `NAMED`; `folder` holds its files (digits needs none)."""
    splits, classes = NAMED[name](folder, settings)
    channels = splits["train"].pictures.shape[1]
    mark = array_fingerprint(splits, classes)
    reason = f"'{name}' is the name of a set that Orchard knows"
    return ImageData(name, source, "named set", reason, classes, channels, splits, mark)


def _digits(folder: Path | None, settings: DataSettings) -> tuple[dict[str, ArraySplit], tuple[str, ...]]:
    """1,797 scans of handwritten digits, 8x8 with 17 levels of grey (E. Alpaydin and C. Kaynak, UCI, 1998).

    They have no official split here, so ours is fixed, whatever the settings: 360 for the test, 180 for validation,
    1,257 to learn from, each with the classes in proportion.
    """
    from sklearn.datasets import load_digits

    table = load_digits()
    pictures = np.round(table.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = table.target.astype(np.int64)
    rest, test = hold_out(labels, 360 / 1797, seed=0)
    train, validation = hold_out(labels[rest], 180 / 1437, seed=1)
    places = {"train": rest[train], "validation": rest[validation], "test": test}
    splits = {s: ArraySplit(f"digits/{s}", pictures[p], labels[p], p) for s, p in places.items()}
    return splits, tuple(str(digit) for digit in range(10))


Reader = Callable[[Path | None, DataSettings], tuple[dict[str, ArraySplit], tuple[str, ...]]]
NAMED: Mapping[str, Reader] = {"digits": _digits}
