"""Pictures from anywhere, for what learns from pictures alone: classes and captions are not asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from orchard.data.captions import CaptionSettings, open_captions
from orchard.data.captions.contracts import zeros
from orchard.data.captions.listing import is_listing
from orchard.data.captions.tsv import ENDINGS as TSV_ENDINGS
from orchard.data.collect import places_of_splits, settle, strangers, top_folders
from orchard.data.contracts import ImageData, Problem
from orchard.data.files import Archive, Files, FileSplit, Folder, Seen, look_at_all, reading
from orchard.data.folder import NO_CLASS
from orchard.data.named import NAMED
from orchard.data.settings import PictureSource
from orchard.data.sources import open_data
from orchard.data.splits import fingerprint
from orchard.data.walk import IMAGES as ENDINGS
from orchard.data.walk import ending_of
from orchard.errors import OrchardError
from orchard.given import Given

_TABLE = re.compile(rb"(?:^|[\t,;|])\s*(?:label|class|category)\s*(?:[\t,;|\r\n]|$)", re.IGNORECASE)


def open_pictures(source: str | Given, settings: CaptionSettings) -> ImageData:
    """Find out what `source` is and open its pictures.

    - a named set, `digits` or `fashion-mnist:FOLDER`, a table of paths and labels, and a Python object: as a
      classifier has them;
    - picture TSVs, and pictures with a file of captions: as a painter has them, with the same splits;
    - any other folder or zip archive: every picture in it, however deep it stands.

    Raises UsageError if there is nothing of that name, OrchardError if what is there cannot be used.
    """
    if isinstance(source, Given):
        return _one_class(open_data(source, settings))
    path = Path(source).expanduser()
    if source.partition(":")[0] in NAMED or (path.is_file() and _is_table(path)):
        return open_data(source, settings)
    with reading(source):
        if path.is_dir() and not _captioned(names := Folder(path).names()[0]):
            return collect_pictures(source, Folder(path), names, settings)
        if path.suffix.lower() == ".zip" and path.is_file() and not _captioned(names := Archive(path).names()[0]):
            return collect_pictures(source, Archive(path), names, settings)
    return open_captions(source, settings).pictures()


def _one_class(data: ImageData) -> ImageData:
    """The data; OrchardError where images have several labels or numbers, which generators cannot be asked for."""
    if data.target != "class":
        raise OrchardError(f"{data.source} has {data.target} for each image; expected one class, such as 0 for all")
    return data


def open_with_classes(source: str | Given, settings: PictureSource) -> ImageData:
    """Images with their classes where all have one, as a classifier has them; else alone, in one class.

    Raises as `open_pictures` does.
    """
    if isinstance(source, Given):
        return _one_class(open_data(source, settings))
    try:
        data = _one_class(open_data(source, settings))
    except OrchardError:
        return open_pictures(source, settings)
    return open_pictures(source, settings) if any(problem.what == NO_CLASS for problem in data.problems) else data


def _is_table(path: Path) -> bool:
    """Does the first line name a column of classes? A picture TSV has none."""
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return False
    with path.open("rb") as file:
        return bool(_TABLE.search(file.readline(2**16)))


def _captioned(names: Sequence[str]) -> bool:
    """Does a place hold captions: a file of them, or picture TSVs at its top?"""
    return any(is_listing(name) or ("/" not in name and name.lower().endswith(TSV_ENDINGS)) for name in names)


def collect_pictures(source: str, files: Files, names: Sequence[str], settings: CaptionSettings) -> ImageData:
    """A set of all pictures in one place. Where every one stands in a folder train, validation or test, those are the
    splits; else some are held out. Bad files are refused or left out, as the settings say."""
    pictures = [name for name in names if ending_of(name) in ENDINGS]
    looks = look_at_all(files, pictures, thorough=settings.bad_records == "skip")
    problems = strangers(names, ENDINGS)
    bad = [Problem(name, look) for name, look in zip(pictures, looks, strict=True) if isinstance(look, str)]
    settle(bad, "cannot be read", "mend or remove them", settings, problems, len(looks))
    seen = {name: look for name, look in zip(pictures, looks, strict=True) if isinstance(look, Seen)}
    if not seen:
        raise OrchardError(f"there is no picture in {source}; expected files such as {source.rstrip('/')}/1.jpg")
    good = list(seen)
    given, digests = top_folders(source, good, problems, settings), [seen[name].digest for name in good]
    splits = {
        split: FileSplit(files, [good[p] for p in places], zeros(len(places)), [seen[good[p]] for p in places])
        for split, places in places_of_splits(given, zeros(len(good)), digests, settings).items()
    }
    mark = fingerprint(
        ((split, name, 0, digest)
         for split, data in splits.items() for name, digest in zip(data.names, data.digests, strict=True)),
        ("picture",),
    )  # fmt: skip
    channels = 1 if all(look.grey for look in seen.values()) else 3
    reason = f"it is {'a zip archive' if isinstance(files, Archive) else 'a folder'} with {len(good)} pictures"
    return ImageData("images", source, "pictures", reason, ("picture",), channels, splits, mark, tuple(problems))
