"""Image folders: `root/class/picture.jpg`, or `root/train/class/picture.jpg` and so on; also inside a zip archive."""

from __future__ import annotations

from collections import Counter

from orchard.data.collect import SPLIT_WORDS, Found, Record
from orchard.data.contracts import DataSettings, Problem
from orchard.data.files import Archive, Files
from orchard.data.walk import IMAGES as ENDINGS
from orchard.errors import OrchardError

_EXPECTED = "expected pictures in one folder for each class, such as {path}/cat/1.jpg or {path}/train/cat/1.jpg"


def read_folder(files: Files, source: str, settings: DataSettings) -> Found:
    """Find classes and splits from the names of folders. Raises OrchardError where there are none to find."""
    names, folders = files.names()
    pictures = [name for name in names if _ending(name) in ENDINGS]
    expected = _EXPECTED.format(path=source.rstrip("/"))
    if not pictures:
        idx = any("idx3-ubyte" in name for name in names)
        advice = f"its files are those of a named set; say which, such as mnist:{source}" if idx else expected
        raise OrchardError(f"there is no picture in {source}; {advice}")
    base = _descend(pictures)
    inside = [name.removeprefix(base) for name in pictures]
    tops = {name.split("/")[0] for name in inside if "/" in name}
    if not tops:
        raise OrchardError(f"the {len(pictures)} pictures in {source} stand in no class folder; {expected}")
    split = all(top.lower() in SPLIT_WORDS for top in tops)
    depth = 2 if split else 1  # folders above a picture
    problems = _strangers(names)
    records: list[Record] = []
    nested: Counter[str] = Counter()
    for name, local in zip(pictures, inside, strict=True):
        parts = local.split("/")
        if len(parts) <= depth:
            problems.append(Problem(name, "stands in no class folder; left out"))
            continue
        if len(parts) > depth + 1:
            nested["/".join(parts[:-1])] += 1
        records.append(Record(name, parts[depth - 1], SPLIT_WORDS[parts[0].lower()] if split else ""))
    for folder, count in nested.items():
        label = folder.split("/")[depth - 1]
        problems.append(Problem(base + folder, f"{count} pictures in a folder inside a class, taken as '{label}'"))
    if split and not any(record.split == "train" for record in records):
        raise OrchardError(f"{source} has folders {', '.join(sorted(tops))} but no class folders in train; {expected}")
    taken = {tuple(r.name.removeprefix(base).split("/")[:depth]) for r in records}
    classes = {tuple(f.removeprefix(base).split("/")) for f in folders if f.startswith(base)}
    empty = [
        Problem(base + "/".join(parts), "class folder without a picture")
        for parts in sorted(classes)
        if len(parts) == depth and parts not in taken and (not split or parts[0].lower() in SPLIT_WORDS)
    ]
    if empty and settings.bad_records == "refuse":
        listed = ", ".join(p.key for p in empty[:5]) + (", ..." if len(empty) > 5 else "")
        raise OrchardError(
            f"{len(empty)} class folders in {source} hold no picture: {listed}\n"
            "fill or remove them, or go on without them with --set data.bad_records=skip"
        )
    problems += empty
    where = "a zip archive" if isinstance(files, Archive) else "a folder"
    layout = f"the splits {', '.join(sorted(tops))} with" if split else "pictures in"
    reason = f"it is {where} that holds {layout} {len({r.label for r in records})} class folders"
    return Found(
        source, "image folder", reason + (f" (in {base.rstrip('/')})" if base else ""), files, records, problems
    )


def _descend(pictures: list[str]) -> str:
    """The folder in which classes or splits begin: below a single folder that only wraps them."""
    base = ""
    while True:
        inside = [name.removeprefix(base).split("/") for name in pictures]
        tops = {parts[0] for parts in inside}
        if len(tops) > 1 or any(len(parts) < 3 for parts in inside) or next(iter(tops)).lower() in SPLIT_WORDS:
            return base
        base += tops.pop() + "/"


def _strangers(names: list[str]) -> list[Problem]:
    """Files that are no pictures by their names, counted by ending."""
    endings = Counter(_ending(name) for name in names)
    return [
        Problem(f"*{ending}", f"{count} files are no pictures by their names; left out")
        for ending, count in sorted(endings.items())
        if ending not in ENDINGS
    ]


def _ending(name: str) -> str:
    file = name.rsplit("/", 1)[-1]
    dot = file.rfind(".")
    return file[dot:].lower() if dot > 0 else ""
