"""From what a person wrote to the set of pictures with captions that it means."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from orchard.data.captions.contracts import CaptionData, CaptionSettings, Progress
from orchard.data.captions.folder import open_folder
from orchard.data.captions.listing import LISTINGS
from orchard.data.captions.named import open_named_captions
from orchard.data.captions.templates import WORDINGS
from orchard.data.captions.tsv import ENDINGS, open_tsv, set_pattern, split_word
from orchard.data.contracts import Problem
from orchard.data.files import Archive, Folder, reading
from orchard.errors import UsageError


def open_captions(source: str, settings: CaptionSettings, progress: Progress | None = None) -> CaptionData:
    """Find out what `source` is and open it.

    - `digits`, `fashion-mnist:FOLDER`: a named set, its captions made from wordings;
    - `x.tsv`, `x.tsv.gz`: rows of text and picture in base64; `x.train.tsv,x.val.tsv` or a pattern `x.*.tsv` or a
      folder with one such set: files that are splits by their names, or parts of one table;
    - a folder or zip archive with pictures and a file of captions, or that file itself; with `settings.root` the
      pictures stand there.

    `progress(done, total)` is told the bytes of a TSV that were read. Raises UsageError if there is nothing of that
    name, OrchardError if what is there cannot be used.
    """
    name, _, folder = source.partition(":")
    if name in WORDINGS:
        root = folder or settings.root
        return open_named_captions(name, Path(root).expanduser() if root else None, settings, source)
    paths = _paths(source)
    first = paths[0]
    with reading(source):
        if len(paths) == 1 and first.is_dir():
            tables, others = _tables(source, first)
            if not tables:
                return open_folder(source, Folder(first), settings)
            data = open_tsv(source, tables, settings, progress)
            return replace(data, problems=(*data.problems, *others))
        if len(paths) == 1 and first.suffix.lower() == ".zip":
            return open_folder(source, Archive(first), settings)
        if len(paths) == 1 and first.name.lower().endswith(LISTINGS):
            place = Path(settings.root).expanduser() if settings.root else first.parent
            return open_folder(source, Folder(place), settings, first)
        strange = next((path for path in paths if not path.name.lower().endswith(ENDINGS)), None)
        if strange is None:
            return open_tsv(source, paths, settings, progress)
    raise UsageError(
        f"{strange} holds no pictures with captions; expected .tsv files of idx<TAB>text<TAB>picture in base64, or a "
        "folder or .zip archive of pictures with captions.txt, captions.csv or metadata.jsonl"
    )


def _paths(source: str) -> list[Path]:
    """The files and folders that a list with commas and patterns names. Raises UsageError where there is none."""
    if Path(source).expanduser().exists():
        return [Path(source).expanduser()]
    found: list[Path] = []
    for part in source.split(","):
        path = Path(part.strip()).expanduser()
        matches = [path] if path.exists() else sorted(_matches(path))
        if not matches:
            near = difflib.get_close_matches(part.partition(":")[0].lower(), WORDINGS, n=2, cutoff=0.6)
            known = (
                f"did you mean {' or '.join(near)}?" if near else f"sets with captions by name: {', '.join(WORDINGS)}"
            )
            raise UsageError(f"there is no file or folder '{part}'; {known}")
        found += matches
    return list(dict.fromkeys(found))


def _matches(pattern: Path) -> Iterator[Path]:
    return Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))


def _tables(source: str, folder: Path) -> tuple[list[Path], list[Problem]]:
    """The TSVs of a folder that are one set, and those that are left out because their names say no split."""
    tables = sorted(path for path in folder.iterdir() if path.name.lower().endswith(ENDINGS))
    named = [path for path in tables if split_word(path)]
    sets = sorted({set_pattern(path) for path in named})
    if len(sets) > 1 or (len(tables) > 1 and not named):
        several = sets or [path.name for path in tables]
        raise UsageError(
            f"{source} holds several sets, {', '.join(several[:6])}; name one by its files or by a pattern, such as "
            f"'{folder / several[0]}'"
        )
    others = [Problem(str(path), "its name says no split; left out") for path in tables if named and path not in named]
    return named or tables, others
