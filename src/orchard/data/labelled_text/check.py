"""What `orchard data check` says of texts with labels: counts by class, lengths, duplicates, what is one-sided."""

from __future__ import annotations

from collections import Counter

import numpy as np

from orchard.data.checked import Checked, spread
from orchard.data.labelled_text.contracts import LabelledTextData, LabelledTexts
from orchard.data.labelled_text.sources import open_labelled_texts
from orchard.data.settings import CaptionSource, LabelledTextSource

MOST = 20  # records that a list names
MOST_READ = 20_000  # texts whose words are counted
ONE_SIDED = 0.95  # share of one class from which on that is said


def check_labelled_texts(source: str, settings: CaptionSource) -> Checked:
    known = settings.model_dump(include=set(LabelledTextSource.model_fields) & set(type(settings).model_fields))
    known["columns"] = {key: value for key, value in known["columns"].items()
                        if key in ("text", "text_pair", "label", "split")}  # fmt: skip
    data = open_labelled_texts(source, LabelledTextSource.model_validate(known))
    counts = {
        name: {"texts": len(split), **data.kind.counts(split.labels, data.classes)}
        for name, split in data.splits.items()
    }
    lengths = np.array([len(text.split()) for text in _sample(data.splits["train"])])
    signs = np.array([len(text) for text in _sample(data.splits["train"])])
    facts = {
        "learned": {"class": "one class", "classes": "several classes", "number": "numbers"}[data.target],
        "texts in a record": 2 if data.paired else 1,
        "words (5 %, median, 95 %)": spread(lengths),
        "characters (5 %, median, 95 %)": spread(signs),
        "remarks": list(remarks(data)),
    }
    problems = tuple(f"{one.key}: {one.what}" for one in data.problems)
    return Checked(source, data.format, data.reason, counts, facts, problems, data.fingerprint, _lists(data))


def remarks(data: LabelledTextData) -> list[str]:
    """What a person should know before a training: one class that nearly all records have."""
    train = data.splits.get("train")
    if train is None or data.target != "class":
        return []
    counts = np.bincount(train.labels, minlength=len(data.classes))
    share = counts.max() / counts.sum()
    most = data.classes[int(counts.argmax())]
    return [f"{share:.1%} of the training texts are '{most}'; accuracy says little, look at macro F1 (class_weights="
            "balanced weighs the others more)"] if share >= ONE_SIDED else []  # fmt: skip


def _sample(split: LabelledTexts) -> list[str]:
    return [" ".join(filter(None, split.text(n))) for n in range(min(len(split), MOST_READ))]


def _lists(data: LabelledTextData) -> dict[str, tuple[str, ...]]:
    """Texts that are there more than once, with one label and with several, and in several splits."""
    where: dict[int, list[tuple[str, int]]] = {}
    for name, split in data.splits.items():
        for n, digest in enumerate(split.digests.tolist()):
            where.setdefault(digest, []).append((name, n))
    again = [places for places in where.values() if len(places) > 1]
    same: list[str] = []
    other: list[str] = []
    leaks: list[str] = []
    for places in again:
        said = " = ".join(data.splits[name].key(n) for name, n in places[:3])
        labels = Counter(str(data.splits[name].labels[n].tolist()) for name, n in places)
        (same if len(labels) == 1 else other).append(said)
        if len({name for name, _ in places}) > 1:
            leaks.append(said)
    found = {"the same text again": same, "the same text with another label": other, "texts in several splits": leaks}
    return {f"{what} ({len(rows)})": tuple(rows[:MOST]) for what, rows in found.items() if rows}
