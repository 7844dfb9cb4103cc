"""Folders of pictures with a file of captions: Hugging Face's imagefolder, Flickr8k and its Chinese captions."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from orchard.data.captions.contracts import CaptionData, CaptionSettings, CaptionSplit, zeros
from orchard.data.captions.listing import is_listing, read_listing
from orchard.data.collect import places_of_splits, settle, strangers, top_folders
from orchard.data.contracts import Problem
from orchard.data.files import Files, FileSplit, Seen, look_at_all
from orchard.data.splits import fingerprint
from orchard.data.walk import IMAGES as ENDINGS
from orchard.data.walk import ending_of
from orchard.errors import OrchardError, UsageError


class FolderSplit(FileSplit, CaptionSplit):
    """Pictures in files, each with all the captions that the file of captions has for it."""

    def __init__(self, files: Files, names: Sequence[str], captions: Sequence[tuple[str, ...]], seen: Sequence[Seen]):
        super().__init__(files, names, zeros(len(names)), seen)
        self.captions = list(captions)

    def texts(self, index: int) -> tuple[str, ...]:
        return self.captions[index]

    def idx(self, index: int) -> str:
        return self.names[index]


def open_folder(source: str, files: Files, settings: CaptionSettings, listing: Path | None = None) -> CaptionData:
    """The set in a place with pictures and a file of captions: `listing`, or else what is found there.

    A picture is looked for beside the file of captions and anywhere else under the place, if only one has its name.
    Splits are the folders `train`, `validation`, `test` if every picture stands in one, else they are held out by
    picture. A picture without a caption is left out and listed; raises OrchardError for a caption without its picture
    and for a picture that cannot be read, unless bad records are skipped.
    """
    names, _ = files.names()
    captions, problems = _captions(source, files, names, listing, settings)
    looks = look_at_all(files, list(captions), thorough=settings.bad_records == "skip")
    seen = {name: look for name, look in zip(captions, looks, strict=True) if isinstance(look, Seen)}
    bad = [Problem(name, look) for name, look in zip(captions, looks, strict=True) if isinstance(look, str)]
    settle(bad, "cannot be read", "mend or remove them", settings, problems, len(looks))
    good = list(seen)
    if not good:
        raise OrchardError(f"{source} has no picture with a caption that can be read")
    places = places_of_splits(
        top_folders(source, good, problems, settings), zeros(len(good)), [seen[name].digest for name in good], settings
    )
    parts = {split: [good[place] for place in chosen] for split, chosen in places.items()}
    splits = {
        split: FolderSplit(files, part, [captions[name] for name in part], [seen[name] for name in part])
        for split, part in parts.items()
    }
    mark = fingerprint(
        ((split, name, 0, digest + "\0".join(texts).encode())
         for split, data in splits.items()
         for name, texts, digest in zip(data.names, data.captions, data.digests, strict=True)),
        (),
    )  # fmt: skip
    channels = 1 if all(look.grey for look in seen.values()) else 3
    reason = "it has pictures and a file that gives them captions"
    return CaptionData("captions", source, "caption folder", reason, channels, splits, mark, tuple(problems))


def _captions(
    source: str, files: Files, names: Sequence[str], listing: Path | None, settings: CaptionSettings
) -> tuple[dict[str, tuple[str, ...]], list[Problem]]:
    """Captions of each picture by its name, in the order in which the files of captions name them."""
    listings = [name for name in names if is_listing(name)] if listing is None else [str(listing)]
    where = [name.rpartition("/")[0] if listing is None else "" for name in listings]
    twice = [name for name, place in zip(listings, where, strict=True) if where.count(place) > 1]
    if twice:
        raise UsageError(f"{source} has several files of captions, {', '.join(twice[:4])}; name the one to be read")
    if not listings:
        raise OrchardError(
            f"{source} has no captions; expected pictures with captions.txt, captions.csv or metadata.jsonl, or TSVs "
            "of idx<TAB>text<TAB>picture in base64"
        )
    pictures = [name for name in names if ending_of(name) in ENDINGS]
    known = {_composed(name): name for name in pictures}
    base: dict[str, list[str]] = {}
    for name in pictures:
        base.setdefault(_composed(name.rpartition("/")[2]), []).append(name)
    found: dict[str, list[str]] = {}
    problems = strangers([name for name in names if not is_listing(name)], ENDINGS)
    lost: list[Problem] = []
    for name, place in zip(listings, where, strict=True):
        shown = str(files.path / name) if listing is None else name
        with files.open(name) if listing is None else listing.open("rb") as file:
            pairs, wrong = read_listing(shown, file.read(), settings)
        problems += wrong
        for picture, text, line in pairs:
            near = f"{place}/{picture}".lstrip("/")
            others = base.get(_composed(picture.rpartition("/")[2]), [])
            at = known.get(_composed(near), others[0] if len(others) == 1 else None)
            if at is None:
                lost.append(Problem(f"{shown}, line {line}", f"there is no picture {near}"))
            else:
                found.setdefault(at, []).append(text)
    settle(lost, "are not there", "add them, or remove their captions", settings, problems, len(found) + len(lost))
    without = len(pictures) - len(found)
    if without:
        first = next(name for name in pictures if name not in found)
        problems.append(Problem(first, f"{without} pictures such as this have no caption; left out"))
    return {name: tuple(dict.fromkeys(texts)) for name, texts in found.items()}, problems


def _composed(name: str) -> str:
    """A name with its accents in one spelling: who wrote the captions may have had another than the file system."""
    return unicodedata.normalize("NFC", name)
