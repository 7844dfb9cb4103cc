"""Finding texts with labels: tables, folders of text files by class, and named sets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from orchard.data.collect import SPLIT_WORDS
from orchard.data.labelled_text.collect import Collected, make_data
from orchard.data.labelled_text.columns import Layout, find_layout, has_names
from orchard.data.labelled_text.contracts import LabelledTextData
from orchard.data.labelled_text.named import NAMED, files_of
from orchard.data.labelled_text.tables import MARK, is_table, opened, read_rows, stem_and_ending
from orchard.data.settings import LabelledTextSettings
from orchard.data.walk import is_junk, walk
from orchard.errors import OrchardError, UsageError
from orchard.given import Given
from orchard.packed import DAMAGE, read_bytes

OWN = "labelled-text"  # what recipes call a person's own data
EXPECTED = "expected a table (.csv, .tsv, .jsonl, .parquet) with a text and a label, or folders of .txt files by class"
MOST_LOOKED = 8  # files of a folder that are looked into
WORD = 8  # characters on average, from which on cells are texts and not words


def open_labelled_texts(source: str | Given, settings: LabelledTextSettings) -> LabelledTextData:
    """Open a named set (`trec:FOLDER`), a table, a folder with a table for each split, folders of .txt files named by
    class, or a Python object that was looked at.

    Files may be packed (.gz). What is not given as validation and test is held out of the training texts, by content.
    Raises UsageError where nothing of that kind is there, OrchardError for what cannot be learned from.
    """
    if isinstance(source, Given):
        return make_data(source.content, settings, OWN, source.source, "object", "it was handed in", (), "label")
    name, _, folder = source.partition(":")
    if name in NAMED:
        root = folder or getattr(settings, "root", None)
        if root is None:
            raise UsageError(f"{name} needs a folder with its files: --data {name}:FOLDER, or data.root=FOLDER")
        files = files_of(name, Path(root).expanduser())
        return _tables(files, settings, name, source, "named set", f"its name is {name}")
    path = Path(source).expanduser()
    if path.is_file():
        if not is_table(path):
            raise UsageError(f"{source} is no table of texts; {EXPECTED}")
        return _tables({"": path}, settings, OWN, source, "table", f"{path.name} is a table")
    if not path.is_dir():
        raise UsageError(f"there is no file or folder '{source}'; sets known by name: {', '.join(NAMED)}")
    tables = _by_split(path)
    if tables:
        return _tables(
            tables, settings, OWN, source, "table", f"{', '.join(f.name for f in tables.values())} are tables"
        )
    return _folders(path, settings, source)


def recognise(source: str) -> bool:
    """Whether a path holds texts with labels for certain: a table that names both columns, two columns of which one has
    few values, fastText's marks, or folders of .txt files by class."""
    path = Path(source).expanduser()
    try:
        if path.is_file():
            return is_table(path) and _is_labelled(path)
        if not path.is_dir():
            return False
        tables = list(_by_split(path).values())
        return any(_is_labelled(file) for file in tables[:MOST_LOOKED]) if tables else _has_classes(path)
    except (OSError, *DAMAGE, ValueError, OrchardError, UsageError):
        return False


def _is_labelled(path: Path) -> bool:
    ending = stem_and_ending(path)[1]
    if ending == ".txt":
        with opened(path) as file:
            return file.readline(200).startswith(MARK)
    names, rows, _ = read_rows(path)
    first = next(rows, None)
    if first is None:
        return False
    if names or has_names(first.cells):
        return has_names(names or first.cells)
    if len(first.cells) != 2:
        return False
    layout, rows = find_layout(str(path), (), rows, LabelledTextSettings())
    found = [
        (str(row.cells[layout.labels[0]]), str(row.cells[layout.text]))
        for row, _ in zip(rows, range(200), strict=False)
    ]
    labels, letters = {label for label, _ in found}, sum(len(text) for _, text in found)
    if len(found) < 10 or letters < WORD * len(found):
        return False  # words with tags
    return len(labels) <= len(found) // 5 and all(len(label.split()) == 1 for label in labels)


def _by_split(folder: Path) -> dict[str, Path]:
    """The tables of a folder by the split that their names say; a single table is all there is."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not is_junk(file.name) and is_table(file)]
    files = [file for file in files if stem_and_ending(file)[1] != ".txt" or _is_labelled(file)]
    if len(files) == 1:
        return {"": files[0]}
    found: dict[str, Path] = {}
    for file in files:
        words = [SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", stem_and_ending(file)[0]) if word in SPLIT_WORDS]
        if not words:
            continue
        if words[-1] in found:
            raise UsageError(f"{folder} has two tables that are {words[-1]}, {found[words[-1]].name} and {file.name}; "
                             "keep one of each split")  # fmt: skip
        found[words[-1]] = file
    return found


def _tables(
    files: Mapping[str, Path], settings: LabelledTextSettings, name: str, source: str, format: str, reason: str
) -> LabelledTextData:
    """All tables, the training one first: the others have its columns."""
    layout: Layout | None = None
    found: Collected | None = None
    for split in sorted(files, key=lambda split: split not in ("", "train")):
        names, rows, said = read_rows(files[split])
        known = NAMED[name] if name in NAMED and not settings.column_names else None
        columns = () if known is None else (split == "test" and known.test_columns) or known.columns
        asked = settings if known is None else settings.model_copy(update={"column_names": columns})
        own, rows = find_layout(str(files[split]), names, rows, asked)
        if layout is not None and found is not None and (own.pair is None) != (layout.pair is None):
            count = "one text" if own.pair is None else "two texts"
            raise OrchardError(f"{files[split]} has {count} in a row, another file of the set has not")
        layout = layout or own
        found = found or Collected(paired=own.pair is not None)
        found.add_source(said)
        found.add_rows(rows, own, split)
    assert layout is not None and found is not None
    column = layout.names[layout.labels[0]]
    return make_data(found, settings, name, source, format, f"{reason}: {layout.how}", layout.several, column)


def _has_classes(folder: Path) -> bool:
    """Whether text files lie in folders of two classes or more, and nothing else that is known does."""
    names = [name for name in walk(folder, (".txt", ".txt.gz")).files if "/" in name]
    return len({_class_and_split(name)[0] for name in names}) > 1


def _class_and_split(name: str) -> tuple[str, str]:
    """`train/pos/12.txt` → pos, train."""
    parts = name.split("/")[:-1]
    split = SPLIT_WORDS.get(parts[0].lower(), "")
    return "/".join(parts[1:] if split else parts), split


def _folders(folder: Path, settings: LabelledTextSettings, source: str) -> LabelledTextData:
    names = [name for name in walk(folder, (".txt", ".txt.gz")).files if "/" in name]
    labelled = [(name, *_class_and_split(name)) for name in names]
    labelled = [row for row in labelled if row[1]]
    if not labelled:
        raise UsageError(f"{source} has no texts with labels; {EXPECTED}")
    found = Collected(paired=False)
    for name, label, split in labelled:
        path = folder / name
        found.add_source(str(path).replace("{", "{{").replace("}", "}}"))
        try:
            text = read_bytes(path).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise OrchardError(
                f"{path}: not UTF-8 (byte 0x{error.object[error.start]:02x}); save it as UTF-8"
            ) from None
        found.add(0, text, None, label, split)
    return make_data(
        found, settings, OWN, source, "text folder", "its text files lie in folders by class", (), "folder"
    )
