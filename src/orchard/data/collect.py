"""From a list of labelled files to a set: look at every file, settle what is wrong, split, and take the fingerprint."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchard.data.contracts import DataSettings, ImageData, Problem
from orchard.data.files import Files, FileSplit, Seen, look_at_all
from orchard.data.splits import fingerprint, hold_out_by_content
from orchard.data.walk import ending_of
from orchard.errors import OrchardError

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?")
_MANY = 10  # classes from which on labels are looked at
_NOWHERE = "nowhere"  # the split of what is left out
GO_ON = "or leave them out with --set data.bad_records=skip"


@dataclass(frozen=True)
class Record:
    """One labelled file; `split` is empty where none is given."""

    name: str
    label: str
    split: str = ""


@dataclass(frozen=True)
class Found:
    """What reading a folder or a table came to, before any picture is looked at."""

    source: str
    format: str
    reason: str
    files: Files
    records: list[Record]
    problems: list[Problem]


def collect(found: Found, settings: DataSettings) -> ImageData:
    """Make a set of what was found. Raises OrchardError where it cannot be one, and for every bad record unless
    `bad_records` is "skip"; then they are left out and listed, and every picture is decoded once to find them.

    A set that is not for training needs no training pictures, and may have any classes."""
    # One class, however its accents are spelled: macOS takes them apart, others do not.
    found = replace(found, records=[replace(r, label=unicodedata.normalize("NFC", r.label)) for r in found.records])
    skip = settings.bad_records == "skip"
    problems = list(found.problems)
    looks = look_at_all(found.files, [r.name for r in found.records], thorough=skip)
    bad = [Problem(r.name, s) for r, s in zip(found.records, looks, strict=True) if isinstance(s, str)]
    good = [(r, s) for r, s in zip(found.records, looks, strict=True) if isinstance(s, Seen)]
    settle(bad, "cannot be read", "mend or remove them", settings, problems, len(looks))
    learned = {record.label for record, _ in good if record.split in ("", "train")}
    if not good or (settings.training and not learned):
        given = ", ".join(sorted({record.split for record, _ in good}))
        only = f", only {given}; expected class folders in train" if given else " that can be read"
        raise OrchardError(f"{found.source} has no training pictures{only}")
    classes = sort_classes(learned if settings.training else {record.label for record, _ in good})
    if settings.training and len(classes) == 1:
        raise OrchardError(f"{found.source} has one class only, '{classes[0]}'; to tell classes apart takes two")
    if settings.training:
        problems += look_at_labels(found.source, [r.label for r, _ in good if r.split in ("", "train")])
    number = {label: place for place, label in enumerate(classes)}
    strange = [
        Problem(r.name, f"class '{r.label}' is not among the training classes")
        for r, _ in good
        if r.label not in number
    ]
    settle(
        strange,
        "have a class that training never sees",
        "add it to the training pictures",
        settings,
        problems,
        len(good),
    )
    good = [(record, seen) for record, seen in good if record.label in number]
    labels = np.array([number[record.label] for record, _ in good])
    splits: dict[str, FileSplit] = {}
    wanted, digests = [record.split for record, _ in good], [seen.digest for _, seen in good]
    for split, places in places_of_splits(wanted, labels, digests, settings).items():
        names, looked = [good[p][0].name for p in places], [good[p][1] for p in places]
        splits[split] = FileSplit(found.files, names, labels[places], looked)
    mark = fingerprint(
        (
            (split, name, int(label), digest)
            for split, data in splits.items()
            for name, label, digest in zip(data.names, data.labels, data.digests, strict=True)
        ),
        classes,
    )
    channels = 1 if all(seen.grey for _, seen in good) else 3
    return ImageData(
        "images", found.source, found.format, found.reason, classes, channels, splits, mark, tuple(problems)
    )  # fmt: skip


def look_at_labels(source: str, labels: Sequence[str]) -> list[Problem]:
    """Whether these are classes at all. OrchardError where most have one picture, a remark where they are measures."""
    counts = Counter(labels)
    single = sum(count == 1 for count in counts.values())
    numbers = all(_NUMBER.fullmatch(label) for label in counts)
    measured = numbers and not all(label.isdigit() for label in counts)
    what = "numbers, so that this is a regression, which no task here learns; sort them into a few classes"
    if len(counts) >= _MANY and single > len(counts) / 2:
        why = what if numbers else "as good as a name for each picture; expected a class that several have"
        raise OrchardError(f"{single} of {len(counts)} classes of {source} have one picture each: the labels are {why}")
    if len(counts) >= _MANY and measured:
        return [Problem(source, f"the labels are {what}; here {len(counts)} classes are told apart, near ones or far")]
    return []


def strangers(names: Sequence[str], endings: Collection[str], what: str = "pictures") -> list[Problem]:
    """Files that are none of `what` by their names, counted by ending."""
    found = Counter(ending_of(name) for name in names)
    return [
        Problem(f"*{ending}" if ending else "names without an ending", f"{count} files are no {what} by their names; "
                "left out")
        for ending, count in sorted(found.items())
        if ending not in endings
    ]  # fmt: skip


def settle(
    bad: Sequence[Problem], what: str, remedy: str, settings: DataSettings, problems: list[Problem], total: int
) -> None:
    """Refuse bad records, naming the first of them, or put them on the list of problems."""
    if bad and settings.bad_records == "refuse":
        first = "; ".join(f"{p.key}: {p.what}" for p in bad[:3]) + ("; ..." if len(bad) > 3 else "")
        raise OrchardError(f"{len(bad)} of {total} pictures {what}: {first}\n{remedy}, {GO_ON}")
    problems.extend(bad)


def sort_classes(labels: set[str]) -> tuple[str, ...]:
    """Class names in their order: by value where all are whole numbers, else by spelling."""
    whole = all(label.isascii() and label.isdigit() for label in labels)
    return tuple(sorted(labels, key=lambda label: (int(label), label) if whole else (0, label)))


def top_folders(source: str, names: Sequence[str], problems: list[Problem], settings: DataSettings) -> list[str]:
    """The split that the first folder of each name says.

    What stands beside two splits or more is left out, and put on the list of problems; beside a single one it shows
    that this is no split: then, as where there is none, all are empty.
    """
    tops = [SPLIT_WORDS.get(name.partition("/")[0].lower(), "") if "/" in name else "" for name in names]
    if not all(tops) and len({*tops}) < 3:
        return [""] * len(names)
    beside = Counter(name.partition("/")[0] for name, top in zip(names, tops, strict=True) if not top)
    problems += [Problem(name, f"{count} pictures beside the splits; left out") for name, count in beside.items()]
    tops = [top or _NOWHERE for top in tops]
    if "train" not in tops and settings.training:
        raise OrchardError(f"{source} has no training pictures, only {', '.join(sorted(set(tops)))}")
    return tops


def places_of_splits(
    given: Sequence[str], labels: np.ndarray, digests: Sequence[bytes], settings: DataSettings
) -> dict[str, np.ndarray]:
    """The places of each split's records; what is not given is held out of the training records, by their content."""
    splits, marks = np.array(given), pack_digests(digests)
    if not any(given) and settings.whole:
        return {"test": np.arange(len(given))}
    found = {name: np.flatnonzero(splits == name) for name in ("validation", "test")}
    rest = np.flatnonzero((splits == "train") | (splits == ""))
    wanted = {} if any(given) or not settings.test_fraction else {"test": settings.test_fraction}
    if len(rest) and not len(found["validation"]) and not settings.whole:
        wanted["validation"] = settings.validation_fraction
    if wanted:
        held = hold_out_by_content(marks[rest], labels[rest], list(wanted.values()), settings.split_seed)
        found |= {name: rest[places] for name, places in zip(wanted, held, strict=True)}
        rest = np.setdiff1d(rest, np.concatenate([rest[places] for places in held]))
    found = {"train": rest, **found}
    return {split: places for split, places in found.items() if len(places)}


def pack_digests(digests: Iterable[bytes]) -> np.ndarray:
    """(N,) int64: the first eight bytes of each."""
    return np.frombuffer(b"".join(digest[:8] for digest in digests), np.int64)
