"""What the words of labels are: classes, in their order, or names and measures that are none. Read without torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from orchard.errors import OrchardError

_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?")
_MANY = 10  # classes from which on labels are looked at
_REGRESSION = "numbers, so that this is a regression, which --set data.target=number learns"


def look_at_labels(source: str, labels: Sequence[str]) -> list[str]:
    """Whether these are classes at all. OrchardError where most have one record, a remark where they are measures."""
    counts = Counter(labels)
    single = sum(count == 1 for count in counts.values())
    numbers = all(_NUMBER.fullmatch(label) for label in counts)
    measured = numbers and not all(label.isdigit() for label in counts)
    if len(counts) >= _MANY and single > len(counts) / 2:
        why = _REGRESSION if numbers else "as good as a name for each record; expected a class that several have"
        separator = next((s for s in "|;" if 2 * sum(s in label for label in counts) > len(counts)), "")
        if separator:
            why = f"lists; --set data.label_separator='{separator}' learns several classes of a record (multi-label)"
        raise OrchardError(f"{single} of {len(counts)} classes of {source} have one record each: the labels are {why}")
    if len(counts) >= _MANY and measured:
        return [f"the labels are {_REGRESSION}; here {len(counts)} classes are told apart, near ones or far"]
    return []


def sort_classes(labels: set[str]) -> tuple[str, ...]:
    """Class names in their order: by value where all are whole numbers, else by spelling."""
    whole = all(label.isascii() and label.isdigit() for label in labels)
    return tuple(sorted(labels, key=lambda label: (int(label), label) if whole else (0, label)))
