"""From rows to a set: texts into the store, labels settled, splits made, and the fingerprint taken."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orchard.data.collect import SPLIT_WORDS, pack_digests, places_of_splits, settle, settle_labels
from orchard.data.contracts import Problem
from orchard.data.labelled_text.columns import Layout, cell
from orchard.data.labelled_text.contracts import LabelledTextData, LabelledTexts
from orchard.data.labelled_text.store import TextStore
from orchard.data.labelled_text.tables import Row
from orchard.data.settings import LabelledTextSettings
from orchard.data.splits import fingerprint
from orchard.data.targets import Raw, choose_target
from orchard.errors import OrchardError

RECORDS = "texts"


@dataclass
class Collected:
    """Records as they are read: their texts go into the store, the rest stays here."""

    paired: bool
    store: TextStore = field(default_factory=TextStore)
    sources: list[str] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    first: list[int] = field(default_factory=list)  # where each record's texts stand
    raws: list[Raw] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    bad: list[Problem] = field(default_factory=list)

    def add_source(self, said: str) -> None:
        self.sources.append(said)

    def add(self, number: int, text: Any, pair: Any, raw: Raw, split: str) -> None:
        """A record of the last source. One without text is put among the bad."""
        key = self.sources[-1].format(number)
        texts = [text, pair] if self.paired else [text]
        for one in texts:
            if not isinstance(one, str):
                self.bad.append(Problem(key, f"its text is {'missing' if one is None else f'a {type(one).__name__}'}"))
                return
            if not one.strip():
                self.bad.append(Problem(key, "its text is empty"))
                return
            if "\0" in one or not _whole(one):
                self.bad.append(Problem(key, "its text has half a character, or a zero byte, in it"))
                return
        self.first.append(len(self.store))
        for one in texts:
            self.store.append(one.strip())
        self.places.append((len(self.sources) - 1, number))
        self.raws.append(sys.intern(raw) if isinstance(raw, str) else raw)
        self.splits.append(split)
        self.digests.append(hashlib.sha256("\0".join(map(str.strip, texts)).encode()).digest()[:8])

    def add_rows(self, rows: Iterable[Row], layout: Layout, split: str) -> None:
        """The rows of a table, all of `split` unless a column says it."""
        for row in rows:
            number = row.number
            word = "" if layout.split is None else str(cell(row, layout.split) or "").strip().lower()
            if word and word not in SPLIT_WORDS:
                raise OrchardError(f"{self.sources[-1].format(number)}: split '{word}' is unknown; expected train, "
                                   "validation or test")  # fmt: skip
            if len(row.cells) < len(layout.names):
                few = f"it has {len(row.cells)} columns, where there should be {len(layout.names)}"
                self.bad.append(Problem(self.sources[-1].format(number), few))
                continue
            text, pair = (None if place is None else cell(row, place) for place in (layout.text, layout.pair))
            self.add(number, text, pair, raw_label(row, layout), SPLIT_WORDS.get(word, split))


def raw_label(row: Row, layout: Layout) -> Raw:
    """What stands in a row for its label: a field, the cells of several columns, a list of names, or numbers."""
    if len(layout.labels) > 1:
        return tuple(_word(cell(row, place)) for place in layout.labels)
    value = cell(row, layout.labels[0])
    if isinstance(value, list | tuple):
        return tuple(_word(one) for one in value)
    if isinstance(value, float) and not value.is_integer():
        return (value,)
    return _word(value)


def _word(value: Any) -> str:
    """A class as it is written, whatever its type in JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value).strip()


def _whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def make_data(
    found: Collected, settings: LabelledTextSettings, name: str, source: str, format: str, reason: str,
    columns: tuple[str, ...], column: str,
) -> LabelledTextData:  # fmt: skip
    """Raises OrchardError where no set can be made, and for every bad record unless `bad_records` is "skip"; then they
    are left out and listed."""
    found.store.finish()
    problems: list[Problem] = []
    total = len(found.first) + len(found.bad)
    settle(found.bad, "cannot be read", "mend or remove them", settings, problems, total, RECORDS)
    keys = [found.sources[file].format(number) for file, number in found.places]
    empty = [n for n, raw in enumerate(found.raws) if raw == ""]
    settle([Problem(keys[n], "its label is empty") for n in empty], "have no label", "label or remove them", settings,
           problems, total, RECORDS)  # fmt: skip
    kept = sorted(set(range(len(keys))).difference(empty))
    raws, wanted = [found.raws[n] for n in kept], [found.splits[n] for n in kept]
    kind, how = choose_target(source, raws, settings, columns=columns, column=column)
    only = (", only {}; name a file train", " that can be read")
    taken, labels, classes = settle_labels(
        source, kind, [keys[n] for n in kept], raws, wanted, settings, problems, only, RECORDS
    )
    kept = [kept[place] for place in taken]
    digests = [found.digests[n] for n in kept]
    places, first, marks = np.array(found.places, np.int64).reshape(-1, 2), np.array(found.first), pack_digests(digests)
    splits: dict[str, LabelledTexts] = {}
    by_split = places_of_splits([found.splits[n] for n in kept], kind.strata(labels), digests, settings)
    for split, chosen in by_split.items():
        of = np.array(kept)[chosen]
        splits[split] = LabelledTexts(
            found.store, tuple(found.sources), places[of], first[of], marks[chosen],
            labels[chosen].astype(np.int64 if labels.ndim == 1 else np.float32), found.paired,
        )  # fmt: skip
    records = (
        (split, data.key(n), data.labels[n], data.digests[n].tobytes())
        for split, data in splits.items()
        for n in range(len(data))
    )
    return LabelledTextData(name, source, format, reason + how, classes, kind.target, found.paired, splits,
                            fingerprint(records, classes), tuple(problems))  # fmt: skip
