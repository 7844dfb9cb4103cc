"""From a list of labelled files to a set: look at every file, settle what is wrong, split, and take the fingerprint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchard.data.contracts import DataSettings, ImageData, Problem
from orchard.data.counter_rng import uniforms
from orchard.data.files import Files, FileSplit, Seen, look_at_all
from orchard.data.splits import check_folds, fingerprint, fold_numbers, hold_out_by_content
from orchard.data.targets import UNNAMED, Raw, TargetKind, choose_target
from orchard.data.walk import ending_of
from orchard.errors import OrchardError, UsageError

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_NOWHERE = "nowhere"  # the split of what is left out
GO_ON = "or leave them out with --set data.bad_records=skip"


@dataclass(frozen=True)
class Record:
    """One labelled file; `split` is empty where none is given."""

    name: str
    label: Raw
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
    columns: tuple[str, ...] = ()  # of a table whose labels are the cells of several
    column: str = UNNAMED  # of a table whose labels are in one


def collect(found: Found, settings: DataSettings) -> ImageData:
    """Make a set of what was found. Raises OrchardError where it cannot be one, and for every bad record unless
    `bad_records` is "skip"; then they are left out and listed, and every picture is decoded once to find them.

    A set that is not for training needs no training pictures, and may have any classes."""
    skip = settings.bad_records == "skip"
    problems = list(found.problems)
    raws = [record.label for record in found.records]
    kind, how = choose_target(found.source, raws, settings, columns=found.columns, column=found.column)
    looks = look_at_all(found.files, [r.name for r in found.records], thorough=skip)
    bad = [Problem(r.name, s) for r, s in zip(found.records, looks, strict=True) if isinstance(s, str)]
    good = [(r, s) for r, s in zip(found.records, looks, strict=True) if isinstance(s, Seen)]
    settle(bad, "cannot be read", "mend or remove them", settings, problems, len(looks))
    keys, wanted = [record.name for record, _ in good], [record.split for record, _ in good]
    only = (", only {}; expected class folders in train", " that can be read")
    taken, labels, classes = settle_labels(
        found.source, kind, keys, [record.label for record, _ in good], wanted, settings, problems, only
    )
    good, wanted = [good[place] for place in taken], [wanted[place] for place in taken]
    digests = [seen.digest for _, seen in good]
    splits: dict[str, FileSplit] = {}
    for split, places in places_of_splits(wanted, kind.strata(labels), digests, settings).items():
        names, looked = [good[p][0].name for p in places], [good[p][1] for p in places]
        splits[split] = FileSplit(found.files, names, labels[places], looked)
    mark = fingerprint(
        (
            (split, name, label, digest)
            for split, data in splits.items()
            for name, label, digest in zip(data.names, data.labels, data.digests, strict=True)
        ),
        classes,
    )
    channels = 1 if all(seen.grey for _, seen in good) else 3
    return ImageData(
        "images", found.source, found.format, found.reason + how, classes, channels, splits, mark, tuple(problems),
        kind.target,
    )  # fmt: skip


def settle_labels(
    source: str,
    kind: TargetKind,
    keys: Sequence[str],
    raws: Sequence[Raw],
    splits: Sequence[str],
    settings: DataSettings,
    problems: list[Problem],
    nothing: tuple[str, str],
    records: str = "pictures",
) -> tuple[list[int], np.ndarray, tuple[str, ...]]:
    """Which records have a label that can be learned or asked about, those labels as they are stored, and their names.

    Bad labels, and labels that no training record has, are refused or put on the list of problems. `nothing` is what is
    said of a set with no training records: with {} for the splits there are, and where there are none. UsageError for
    folds that cannot be made of these records.
    """
    labels: dict[int, Any] = {}
    bad = []
    for place, (key, raw) in enumerate(zip(keys, raws, strict=True)):
        try:
            labels[place] = kind.read(raw)
        except ValueError as error:
            bad.append(Problem(key, str(error)))
    settle(bad, "have a label that is not right", "mend or remove them", settings, problems, len(keys), records)
    learned = [label for place, label in labels.items() if splits[place] in ("", "train")]
    if not labels or (settings.training and not learned):
        given = ", ".join(sorted({splits[place] for place in labels}))
        raise OrchardError(f"{source} has no training {records}{nothing[0].format(given) if given else nothing[1]}")
    names = kind.names(learned if settings.training else list(labels.values()))
    if settings.training:
        problems += [Problem(source, line) for line in kind.check(source, learned, names)]
    known = frozenset(names)
    strange = [Problem(keys[place], what) for place, label in labels.items() if (what := kind.unknown(label, known))]
    what = "have a class that training never sees"
    settle(strange, what, f"add it to the training {records}", settings, problems, len(labels), records)
    taken = [place for place, label in labels.items() if not kind.unknown(label, known)]
    if settings.held_fold and settings.training:
        if any(splits[place] == "validation" for place in taken):
            raise UsageError(
                f"{source} has a validation split of its own, and each fold takes another part of the training records "
                "for it; put its records among those of train, or train without folds"
            )
        check_folds(source, kind.counts(kind.encode(learned, names), names), settings.held_fold[1])
    return taken, kind.encode([labels[place] for place in taken], names), names


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
    bad: Sequence[Problem],
    what: str,
    remedy: str,
    settings: DataSettings,
    problems: list[Problem],
    total: int,
    records: str = "pictures",
) -> None:
    """Refuse bad records, naming the first of them, or put them on the list of problems."""
    if bad and settings.bad_records == "refuse":
        first = "; ".join(f"{p.key}: {p.what}" for p in bad[:3]) + ("; ..." if len(bad) > 3 else "")
        raise OrchardError(f"{len(bad)} of {total} {records} {what}: {first}\n{remedy}, {GO_ON}")
    problems.extend(bad)


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
    hold = bool(len(rest)) and not len(found["validation"]) and not settings.whole
    if hold and not settings.held_fold:
        wanted["validation"] = settings.validation_fraction
    if wanted:
        held = hold_out_by_content(marks[rest], labels[rest], list(wanted.values()), settings.split_seed)
        found |= {name: rest[places] for name, places in zip(wanted, held, strict=True)}
        rest = np.setdiff1d(rest, np.concatenate([rest[places] for places in held]))
    if hold and settings.held_fold:
        fold, folds = settings.held_fold
        chance = uniforms(settings.split_seed, 0, marks[rest], 1)[:, 0]
        held_now = fold_numbers(chance, labels[rest], folds) == fold
        found["validation"], rest = rest[held_now], rest[~held_now]
    found = {"train": rest, **found}
    return {split: places for split, places in found.items() if len(places)}


def pack_digests(digests: Iterable[bytes]) -> np.ndarray:
    """(N,) int64: the first eight bytes of each."""
    return np.frombuffer(b"".join(digest[:8] for digest in digests), np.int64)
