"""Images that a model is asked about, in files or in memory: found, and read by a few threads ahead of time."""

from __future__ import annotations

import glob
import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from orchard.data.walk import IMAGES, walk
from orchard.errors import UsageError
from orchard.files import open_regular

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from orchard.data.contracts import Preprocess

AHEAD = 2  # batches that are read while one is answered
P = TypeVar("P")
T = TypeVar("T")
Found = tuple[T, "Future[P | str]"]  # an image, or where it is, and its pixels or what is wrong with it


def read_ahead(items: Sequence[T], size: int, read: Callable[[T], P | str]) -> Iterator[list[Found[T, P]]]:
    """Batches of `size` items with what `read` gives for each, read by a few threads while others are worked on."""
    left = iter(items)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        waiting: deque[list[Found[T, P]]] = deque()
        while chunk := list(islice(left, size)):
            waiting.append([(item, pool.submit(read, item)) for item in chunk])
            if len(waiting) > AHEAD:
                yield waiting.popleft()
        yield from waiting


def read_array(image: Any, preprocess: Preprocess) -> np.ndarray | str:
    """The pixels of one image as the model saw them in training, (C, H, W) uint8; or what is wrong with it.

    It is a path, the bytes of a file, or what `as_picture` takes; UsageError for anything else.
    """
    from orchard.data.pictures import FAULTS, fault
    from orchard.data.preprocess import fit

    try:
        with opened_image(image) as picture:
            return np.array(fit(picture, preprocess).transpose(2, 0, 1), order="C")
    except FAULTS as error:
        return fault(error)


@contextmanager
def opened_image(image: Any) -> Iterator[Image.Image]:
    """One image, upright. Raises one of `FAULTS` for a file that cannot be read, UsageError for what is no image."""
    from orchard.data.pictures import as_picture, open_picture

    if isinstance(image, str | Path):
        with open_regular(Path(image)) as file, open_picture(file) as picture:
            yield picture
    elif isinstance(image, bytes):
        with open_picture(io.BytesIO(image)) as picture:
            yield picture
    else:
        try:
            picture = as_picture(image)
        except ValueError as error:
            raise UsageError(f"{error}; a path or the bytes of an image file will do, too") from None
        yield picture


def find_items(images: Any) -> list[Any]:
    """What a model is asked about: the files of every path, folder and pattern, and images in memory as they are."""
    items: list[Any] = []
    for image in images if isinstance(images, list | tuple) else [images]:
        items += find_images(image) if isinstance(image, str | Path) else [image]
    return items


def item_name(item: Any, number: int) -> str:
    """What an answer calls an image: its path, or its number among those that were asked about, from 0."""
    return str(item) if isinstance(item, str | Path) else f"image {number}"


def read_pixels(image: Any, preprocess: Preprocess) -> Tensor | str:
    """`read_array` as a tensor."""
    import torch

    pixels = read_array(image, preprocess)
    return pixels if isinstance(pixels, str) else torch.from_numpy(pixels)


def read_stored(image: Any) -> Tensor | str:
    """An image as it is stored, RGB, (3, H, W) uint8; or what is wrong with it."""
    import torch

    from orchard.data.pictures import FAULTS, fault, plain

    try:
        with opened_image(image) as picture:
            return torch.from_numpy(np.array(plain(picture, 3))).permute(2, 0, 1)
    except FAULTS as error:
        return fault(error)


def find_images(places: str | Path | Iterable[str | Path]) -> list[str]:
    """The files that are meant: a file itself, the images in a folder and below it, or what a pattern fits.

    Raises UsageError for a place where there is nothing.
    """
    found: list[str] = []
    for place in [places] if isinstance(places, str | Path) else places:
        here = Path(place)
        if here.is_dir():
            files = [str(here / name) for name in walk(here, IMAGES).files]
        elif here.is_file():
            files = [str(here)]
        else:
            fitting = glob.glob(str(place), recursive=True)  # noqa: PTH207 Path.glob takes no absolute pattern
            files = sorted(path for path in fitting if Path(path).is_file())
        if not files:
            raise UsageError(f"{place}: no picture there (a file, a folder with pictures or a pattern is expected)")
        found += files
    return found
