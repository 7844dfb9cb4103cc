"""Maps of segments in files: PNGs in colour, in which a segment's id is R + 256 G + 65536 B (COCO's panoptic form)."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from PIL import Image

from orchard.data.files import Files
from orchard.data.pictures import FAULTS, fault, open_picture

MOST = 256**3 - 1  # the largest id


@dataclass(frozen=True)
class SeenMap:
    """What one look at a map told."""

    height: int
    width: int
    pixels: dict[int, int]  # of each id that is in it, but 0
    digest: bytes


def read_ids(files: Files, name: str) -> np.ndarray:
    """The id of the segment at each pixel, (H, W) int32; 0 is none.

    Raises ValueError for a picture that is not in colour, one of `FAULTS` for what is no picture.
    """
    with files.open(name) as file, open_picture(file) as picture:
        if picture.mode not in ("RGB", "RGBA"):
            raise ValueError(f"is {picture.mode}; expected RGB, in which a segment's id is R + 256 G + 65536 B")
        pixels = np.asarray(picture).astype(np.int32)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return np.asarray(red + 256 * green + 65536 * blue)


def ids_image(ids: np.ndarray) -> Image.Image:
    """Ids (H, W) as a picture in colour: the inverse of `read_ids`."""
    return Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8))


def look_at_map(files: Files, name: str) -> SeenMap | str:
    """What is in a map, or what is wrong with it."""
    try:
        ids = read_ids(files, name)
    except FAULTS as error:
        return fault(error)
    except KeyError:
        return "there is no such file"
    flat = ids.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=-1))  # of runs of one id: far fewer than pixels
    found, place = np.unique(flat[starts], return_inverse=True)
    counts = np.bincount(place, np.diff(starts, append=flat.size)).astype(int)
    pixels = {int(id): int(count) for id, count in zip(found, counts, strict=True) if id}
    height, width = ids.shape
    return SeenMap(height, width, pixels, sha256(ids.tobytes()).digest())
