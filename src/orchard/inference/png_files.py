"""Images as PNG files that say where they came from, and sheets of several."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, PngImagePlugin

from orchard.errors import OrchardError, UsageError
from orchard.files import atomic

OURS = re.compile(
    r"(.+-)?\d+\.png|sheet\.png|walk\.(gif|mp4)"
)  # names of images that calls write: ranked, or of a class
GAP = 2  # pixels between the pictures of a sheet


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as PNG, with all that its `info` says in words as text chunks (iTXt, UTF-8)."""
    chunks = PngImagePlugin.PngInfo()
    for key, value in picture.info.items():
        if isinstance(value, str):
            chunks.add_itxt(str(key), value)
    file = io.BytesIO()
    picture.save(file, format="PNG", pnginfo=chunks)
    return file.getvalue()


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG with its text chunks. Raises OrchardError where it cannot be written."""
    write_bytes(path, png_bytes(picture))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all. Raises OrchardError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as file:
            file.write(content)
    except OSError as error:
        raise OrchardError(f"{path} cannot be written: {error.strerror or error}") from None


def new_images(folder: Path, named: bool) -> Path:
    """The folder for the images of a call: `folder` unless an earlier call's are in it, whose they stay.

    Then a folder that a person named is refused with a UsageError, and another gets the next free number.
    """
    number, path = 1, folder
    while path.is_dir() and (found := next((p.name for p in sorted(path.iterdir()) if OURS.fullmatch(p.name)), None)):
        if named:
            raise UsageError(f"{folder} holds {found} of an earlier call; name another folder with --out")
        number += 1
        path = folder.with_name(f"{folder.name}-{number}")
    return path


def sheet(pictures: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """Pictures of one size side by side, row by row, without `columns` in about a square; it says what the first one
    says."""
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    width, height = (side + GAP for side in pictures[0].size)
    whole = Image.new(pictures[0].mode, (columns * width - GAP, -(-len(pictures) // columns) * height - GAP), "white")
    for place, picture in enumerate(pictures):
        whole.paste(picture, (place % columns * width, place // columns * height))
    whole.info.update({key: value for key, value in pictures[0].info.items() if key != "candidate"})
    return whole
