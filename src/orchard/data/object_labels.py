"""Labels in Python objects: a class by number or name, several of them, a vector of 0 and 1, a number or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from orchard.data.targets import Raw
from orchard.errors import OrchardError

Found = Raw | np.ndarray  # an array waits for those of the other items


def read_label(label: Any, classes: Sequence[str], key: str) -> Found:
    """A label as it stands in an item: the name of a class; a tuple of names; a tuple of floats; or (K,) an array.

    int and str are a class, float is a number; a list of the former is several classes, of floats several numbers.
    """
    if hasattr(label, "item") and getattr(label, "ndim", 0) == 0:
        label = label.item()
    if isinstance(label, float):
        return (label,)
    if isinstance(label, list | tuple):
        if label and all(isinstance(one, float) for one in label):
            return tuple(label)
        return tuple(_class(one, classes, key) for one in label)
    if getattr(label, "ndim", None) == 1:
        array = np.asarray(label)
        if array.dtype.kind in "biuf":
            return array
        return tuple(_class(one, classes, key) for one in array.tolist())
    return _class(label, classes, key)


def name_classes(labels: Sequence[Found], classes: Sequence[str], name: str) -> list[Raw]:
    """Arrays among the labels of a split as what they are: vectors of 0 and 1, one for each class, where all are of one
    length and hold nothing else; floats are numbers; integers name classes."""
    arrays = [label for label in labels if isinstance(label, np.ndarray)]
    widths = {len(array) for array in arrays}
    vectors = (
        len(arrays) == len(labels) and len(widths) == 1 and widths.pop() > 1
        and all(bool(np.isin(array, (0, 1)).all()) for array in arrays)
    )  # fmt: skip
    if vectors and classes and len(arrays[0]) != len(classes):
        raise OrchardError(f"{name}: its labels have {len(arrays[0])} columns, the data set has {len(classes)} classes")
    found: list[Raw] = []
    for place, label in enumerate(labels):
        if not isinstance(label, np.ndarray):
            found.append(label)
        elif vectors:
            found.append(tuple(_class(int(number), classes, name) for number in label.nonzero()[0]))
        elif label.dtype.kind == "f":
            found.append(tuple(label.tolist()))
        else:
            found.append(tuple(_class(int(number), classes, f"{name}[{place}]") for number in label))
    return found


def _class(label: Any, classes: Sequence[str], key: str) -> str:
    """The name of a class from its number or its name."""
    if hasattr(label, "item") and getattr(label, "ndim", 0) == 0:
        label = label.item()
    if isinstance(label, str):
        if classes and label not in classes:
            raise OrchardError(f"{key}: its label '{label}' is none of the {len(classes)} classes of the data set")
        if not label.strip():
            raise OrchardError(f"{key}: its label is empty")
        return label
    if not isinstance(label, int):
        shape = f" {tuple(label.shape)}" if hasattr(label, "shape") else f" {label!r}"
        raise OrchardError(f"{key}: its label is a {type(label).__name__}{shape[:80]}; expected a class as int or str")
    if label < 0 or (classes and label >= len(classes)):
        most = f"to {len(classes) - 1}, as the data set has {len(classes)} classes" if classes else "or more"
        raise OrchardError(f"{key}: its label is {int(label)}; expected 0 {most}")
    return classes[label] if classes else str(int(label))
