"""Data in Python objects, whatever it is of: its splits, its name, the columns of its records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchard.data.collect import SPLIT_WORDS
from orchard.errors import UsageError

EXPECTED = "expected a data set that is indexed by number (len(data) and data[0]), a list of records or a frame"


def parts_of(data: Any) -> dict[str, Any]:
    """The object of each split: of a mapping by its keys, of a tuple (train, test) or (train, validation, test); a
    single object has the split ""."""
    if isinstance(data, tuple):
        names = {2: ("train", "test"), 3: ("train", "validation", "test")}.get(len(data))
        if names is None:
            raise UsageError(
                f"the data is a tuple of {len(data)}; expected (train, test), (train, validation, test), or a list of "
                "(image, label)"
            )
        return dict(zip(names, data, strict=True))
    if not isinstance(data, Mapping):
        return {"": data}
    strange = [key for key in data if str(key).lower() not in SPLIT_WORDS]
    if strange or not data:
        raise UsageError(f"the data has a split {strange[0]!r}; expected train, validation and test" if strange
                         else "the data is a dict without a split; expected train, validation and test")  # fmt: skip
    found = {SPLIT_WORDS[str(key).lower()]: part for key, part in data.items()}
    if len(found) < len(data):
        raise UsageError(f"the data has two keys for one split: {', '.join(map(str, data))}")
    return found


def name_of(data: Any) -> str:
    """What a data set is called: by its own account (Hugging Face), or by its class, below what wraps it."""
    inner = innermost(data)
    return str(getattr(getattr(inner, "info", None), "dataset_name", None) or type(inner).__name__)


def innermost(data: Any) -> Any:
    """The data set that a `Subset` and its kin are of."""
    while not isinstance(data, list) and hasattr(data, "dataset"):
        data = data.dataset
    return data


def require_records(data: Any, name: str) -> None:
    """UsageError for what has no records that are indexed by number, or none at all."""
    if hasattr(data, "batch_sampler"):
        raise UsageError(f"{name} is wrapped in a loader of batches; hand in its data set (loader.dataset)")
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")) or isinstance(data, str | bytes):
        raise UsageError(f"a {type(data).__name__} is no data that can be learned from; {EXPECTED}")
    if not len(data):
        raise UsageError(f"{name} is empty: it has no record")


def is_frame(data: Any) -> bool:
    """Is this a pandas frame, by what it can do?"""
    return hasattr(data, "columns") and hasattr(data, "itertuples")


def frame_rows(frame: Any) -> tuple[list[str], Iterator[tuple[str, list[str]]]]:
    """The header of a frame, and its rows as text, each with its number from 0. What is missing is ""."""
    header = [str(name).strip() for name in frame.columns]
    rows = frame.itertuples(index=False, name=None)
    return header, ((f"row {number}", [_text(value) for value in row]) for number, row in enumerate(rows))


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value)  # not a number is missing


def column(record: Mapping[str, Any], names: Sequence[str], role: str) -> str:
    """The key of a record that is one of the usual names of what it is asked for."""
    found = [name for name in names if name in record]
    if len(found) != 1:
        raise UsageError(f"a record has {', '.join(map(str, record))}; expected one {role} named {' or '.join(names)}")
    return found[0]
