"""Image folders: `root/class/picture.jpg`, or `root/train/class/picture.jpg` and so on; also inside a zip archive."""

from __future__ import annotations

from collections import Counter

from orchard.data.collect import SPLIT_WORDS, Found, Record, strangers
from orchard.data.contracts import DataSettings, Problem
from orchard.data.files import Archive, Files
from orchard.data.settings import FolderSettings
from orchard.data.walk import IMAGES as ENDINGS
from orchard.data.walk import ending_of
from orchard.errors import OrchardError

NO_CLASS = "stands in no class folder; left out"
_EXPECTED = "expected pictures in one folder for each class, such as {path}/cat/1.jpg or {path}/train/cat/1.jpg"


def read_folder(files: Files, source: str, settings: DataSettings) -> Found:
    """Find classes and splits from the names of folders. Raises OrchardError where there are none to find.

    A folder called train, val or test that holds class folders is a split; what stands beside splits is left out.
    """
    names, folders = files.names()
    pictures = [name for name in names if ending_of(name) in ENDINGS]
    expected = _EXPECTED.format(path=source.rstrip("/"))
    if not pictures:
        idx = any("idx3-ubyte" in name for name in names)
        advice = f"its files are those of a named set; say which, such as mnist:{source}" if idx else expected
        raise OrchardError(f"there is no picture in {source}; {advice}")
    base = _descend(pictures)
    inside = [name.removeprefix(base).split("/") for name in pictures]
    tops = {parts[0] for parts in inside if len(parts) > 1}
    if not tops:
        raise OrchardError(f"the {len(pictures)} pictures in {source} stand in no class folder; {expected}")
    splits = {top for top in tops if top.lower() in SPLIT_WORDS}
    split = splits == tops or any(len(parts) > 2 for parts in inside if parts[0] in splits)
    depth = 2 if split else 1  # folders above a picture
    how = settings.classes if isinstance(settings, FolderSettings) else "top"
    problems = strangers(names, ENDINGS)
    records: list[Record] = []
    nested: Counter[str] = Counter()
    beside: Counter[str] = Counter()
    for name, parts in zip(pictures, inside, strict=True):
        if split and len(parts) > 1 and parts[0] not in splits:
            beside[parts[0]] += 1
            continue
        if len(parts) <= depth:
            problems.append(Problem(name, NO_CLASS))
            continue
        above = parts[depth - 1 : -1]
        if len(above) > 1 and how == "top":
            nested["/".join(parts[:-1])] += 1
        label = {"top": above[0], "leaf": above[-1], "path": "/".join(above)}[how]
        records.append(Record(name, label, SPLIT_WORDS[parts[0].lower()] if split else ""))
    if not records:
        raise OrchardError(f"{source} has folders {', '.join(sorted(splits))} but no class folders in them; {expected}")
    for folder, count in nested.items():
        label = folder.split("/")[depth - 1]
        what = (
            f"{count} pictures in a folder inside a class, taken as '{label}' (data.classes=leaf or path: as its own)"
        )
        problems.append(Problem(base + folder, what))
    for top, count in sorted(beside.items()):
        what = f"{count} pictures in a folder beside the splits {', '.join(sorted(splits))}; left out"
        problems.append(Problem(base + top, what))
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
    layout = f"the splits {', '.join(sorted(splits))} with" if split else "pictures in"
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
