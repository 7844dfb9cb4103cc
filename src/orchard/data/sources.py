"""From what a person wrote after --data to the set it means."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from orchard.data import table
from orchard.data.collect import collect
from orchard.data.contracts import DataSettings, ImageData
from orchard.data.files import Archive, Folder, reading
from orchard.data.folder import read_folder
from orchard.data.named import NAMED, open_named
from orchard.data.picture_objects import open_images, take_images
from orchard.errors import UsageError


def open_data(source: Any, settings: DataSettings | None = None) -> ImageData:
    """Images with classes: find out what `source` is and open it.

    It is the name of a set (`digits`, `fashion-mnist:FOLDER`), the path of a folder, a zip archive or a table, or a
    Python object:

    - a map-style data set of torch or Hugging Face, or a list, with items (image, label) or a dict of the two. Images
      are PIL, uint8 numpy (H, W) or (H, W, C), or uint8 tensors (C, H, W), with C 1 or 3, the same each time they are
      read. Labels are int or str; `classes` of torchvision's sets and `ClassLabel` features name them.
    - a frame of pandas with columns of paths and labels, as a table in a file has them.
    - several of these: a dict by their splits, a tuple (train, test) or (train, validation, test).

    Raises UsageError if there is nothing of that name, OrchardError if what is there cannot be used; of an object it
    names the item.
    """
    settings = settings or DataSettings()
    if not isinstance(source, str | Path):
        return open_images(take_images(source), settings)
    source = str(source)
    name, _, folder = source.partition(":")
    if name in NAMED:
        root = folder or settings.root
        return open_named(name, Path(root).expanduser() if root else None, settings, source)
    path = Path(source).expanduser()
    with reading(source):
        if path.is_dir():
            return collect(read_folder(Folder(path), source, settings), settings)
        if path.suffix.lower() == ".zip" and path.is_file():
            return collect(read_folder(Archive(path), source, settings), settings)
        if path.suffix.lower() in table.ENDINGS and path.is_file():
            return collect(table.read_table(path, source, settings), settings)
    if path.exists():
        raise UsageError(
            f"{source} is no set of pictures; expected a folder, a .zip archive of one, or a .csv or .tsv table"
        )
    near = difflib.get_close_matches(name.lower(), NAMED, n=2, cutoff=0.6)
    advice = f"did you mean {' or '.join(near)}?" if near else f"sets known by name: {', '.join(NAMED)}"
    raise UsageError(f"there is no file or folder '{source}'; {advice}")
