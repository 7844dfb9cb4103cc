"""Images in files that a model is asked about: found, and read by a few threads ahead of time."""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from orchard.data.walk import IMAGES, walk
from orchard.errors import UsageError
from orchard.files import open_regular

if TYPE_CHECKING:
    from torch import Tensor

    from orchard.data.contracts import Preprocess

AHEAD = 2  # batches that are read while one is answered
P = TypeVar("P")
Found = tuple[str, "Future[P | str]"]  # an image's path and its pixels, or what is wrong with it


def read_ahead(paths: Sequence[str], size: int, read: Callable[[str], P | str]) -> Iterator[list[Found[P]]]:
    """Batches of `size` paths with what `read` gives for each, read by a few threads while others are worked on."""
    left = iter(paths)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        waiting: deque[list[Found[P]]] = deque()
        while chunk := list(islice(left, size)):
            waiting.append([(path, pool.submit(read, path)) for path in chunk])
            if len(waiting) > AHEAD:
                yield waiting.popleft()
        yield from waiting


def read_array(path: str, preprocess: Preprocess) -> np.ndarray | str:
    """The pixels of one image as the model saw them in training, (C, H, W) uint8; or what is wrong with it."""
    from orchard.data.pictures import FAULTS, fault, open_picture
    from orchard.data.preprocess import fit

    try:
        with open_regular(Path(path)) as file, open_picture(file) as picture:
            return np.array(fit(picture, preprocess).transpose(2, 0, 1), order="C")
    except FAULTS as error:
        return fault(error)


def read_pixels(path: str, preprocess: Preprocess) -> Tensor | str:
    """`read_array` as a tensor."""
    import torch

    pixels = read_array(path, preprocess)
    return pixels if isinstance(pixels, str) else torch.from_numpy(pixels)


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
