"""Masks of the objects of one picture, run-length encoded as COCO does it (pycocotools).

An encoded mask takes about a hundred bytes. Pixels are made where they are asked for, for one picture at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco
from torch import Tensor

MOST_CHARACTERS = 6  # of one run in COCO's code, five bits each: more pixels than any picture has


@dataclass(frozen=True)
class Masks:
    """N masks of one height and width, each as its runs in COCO's compressed code."""

    height: int
    width: int
    runs: tuple[bytes, ...]

    @classmethod
    def of(cls, dense: Tensor) -> Masks:
        """Of pixels (N, H, W), bool or 0 and 1."""
        columns = np.asfortranarray(dense.to(torch.uint8).permute(1, 2, 0).cpu().numpy())
        return cls(dense.shape[1], dense.shape[2], tuple(one["counts"] for one in coco.encode(columns)))

    @classmethod
    def joined(cls, parts: Sequence[Masks]) -> Masks:
        """Those of several, at least one, all of one height and width."""
        return cls(parts[0].height, parts[0].width, tuple(runs for part in parts for runs in part.runs))

    def __len__(self) -> int:
        return len(self.runs)

    def dense(self) -> Tensor:
        """The pixels, (N, H, W) bool."""
        if not self.runs:
            return torch.zeros(0, self.height, self.width, dtype=torch.bool)
        columns = coco.decode([self._coco(runs) for runs in self.runs])  # (H, W, N)
        return torch.from_numpy(columns).permute(2, 0, 1).bool()

    def only(self, kept: np.ndarray) -> Masks:
        """Those that a bool (N,) marks, or those at some places, in their order."""
        return Masks(self.height, self.width, tuple(self.runs[n] for n in np.arange(len(self.runs))[kept]))

    def mirrored(self) -> Masks:
        """Left and right exchanged."""
        return Masks.of(self.dense().flip(2))

    def resized(self, height: int, width: int) -> Masks:
        """On the picture at another size: a pixel is the object's where the object covers half of it."""
        small = F.interpolate(self.dense()[:, None].float(), (height, width), mode="bilinear", antialias=True)
        return Masks.of(small[:, 0] >= 0.5)

    def moved(self, left: int, top: int, height: int, width: int) -> Masks:
        """On a picture of this size whose left upper corner is at this pixel of the old one: cut out, or placed on a
        larger one where the corner is less than 0."""
        dense = self.dense()
        found = dense.new_zeros(len(dense), height, width)
        ends = min(self.height, top + height), min(self.width, left + width)
        rows, columns = (slice(max(first, 0), end) for first, end in zip((top, left), ends, strict=True))
        part = dense[:, rows, columns]
        down, right = max(-top, 0), max(-left, 0)
        found[:, down : down + part.shape[1], right : right + part.shape[2]] = part
        return Masks.of(found)

    def overlaps(self, others: Masks) -> Tensor:
        """The IoU of each of these with each of the others, (N, M) float32."""
        if not self.runs or not others.runs:
            return torch.zeros(len(self), len(others))
        pairs = ([self._coco(runs) for runs in masks.runs] for masks in (self, others))
        return torch.from_numpy(coco.iou(*pairs, [False] * len(others))).float()

    def areas(self) -> np.ndarray:
        """(N,) pixels of each."""
        return coco.area([self._coco(runs) for runs in self.runs]) if self.runs else np.zeros(0, np.uint32)

    def to_json(self) -> list[dict[str, Any]]:
        """Each as COCO's files have it."""
        return [{"size": [self.height, self.width], "counts": runs.decode("ascii")} for runs in self.runs]

    def _coco(self, runs: bytes) -> dict[str, Any]:
        return {"size": [self.height, self.width], "counts": runs}


def read_mask(found: Any, height: int, width: int) -> bytes:
    """The runs of COCO's `segmentation`, for a picture of this size: polygons, or runs as a list or in COCO's code.

    Raises ValueError that says what is wrong with it.
    """
    if isinstance(found, dict):
        runs = _read_runs(found, height, width)
    elif isinstance(found, list) and found:
        polygons = [_read_polygon(one, height, width) for one in found]
        runs = coco.merge(coco.frPyObjects(polygons, height, width))["counts"]
    else:
        raise ValueError("no mask; expected polygons or runs in 'segmentation'")
    if not coco.area({"size": [height, width], "counts": runs}):
        raise ValueError("a mask without a pixel inside the picture")
    return runs


def _read_polygon(found: Any, height: int, width: int) -> list[float]:
    """Coordinates x, y, x, y, ... of points that are not further outside of the picture than it is large."""
    try:
        points = np.array(found, np.float64)
    except (TypeError, ValueError):
        points = np.zeros((0, 0))
    if points.ndim != 1 or not np.isfinite(points).all():
        raise ValueError("a polygon that is no list of numbers")
    if len(points) < 6:
        raise ValueError(f"a polygon of {len(points) // 2} points, expected three or more")
    if len(points) % 2:
        raise ValueError(f"a polygon of {len(points)} numbers, expected pairs of x and y")
    outside = np.abs(points - np.tile([width, height], len(points) // 2) / 2) > 1.5 * max(height, width)
    if outside.any():
        raise ValueError(f"a polygon with a point far outside of the picture ({points[outside][0]:g})")
    return points.tolist()


def _read_runs(found: dict[str, Any], height: int, width: int) -> bytes:
    size, counts = found.get("size"), found.get("counts")
    if size != [height, width]:
        raise ValueError(f"a mask of height and width {size}, the picture has {[height, width]}")
    if isinstance(counts, list):
        try:
            numbers = np.array(counts, np.int64)
        except (TypeError, ValueError, OverflowError):
            raise ValueError("runs that are no list of integers") from None
    elif isinstance(counts, str):
        numbers = _decode(counts.encode("ascii", "replace"))
    else:
        raise ValueError("runs without 'counts'")
    if numbers.ndim != 1 or (numbers < 0).any() or numbers.sum() != height * width:
        raise ValueError(f"runs that do not decode: they are not of {height * width} pixels")
    if isinstance(counts, str):
        return counts.encode("ascii")
    runs: bytes = coco.frPyObjects({"size": size, "counts": numbers.tolist()}, height, width)["counts"]
    return runs


def _decode(code: bytes) -> np.ndarray:
    """The lengths of the runs in COCO's code: five bits a character from '0' on, a sixth for "goes on"; from the fourth
    on the difference to the last run of the same kind. pycocotools reads it too, but does not check it."""
    characters = np.frombuffer(code, np.uint8).astype(np.int64) - ord("0")
    if not len(code) or (characters < 0).any() or (characters > 63).any() or characters[-1] & 32:
        raise ValueError("runs that do not decode: they are not in COCO's code")
    starts = np.flatnonzero(np.r_[True, characters[:-1] & 32 == 0])
    lengths = np.diff(np.r_[starts, len(characters)])
    if lengths.max() > MOST_CHARACTERS:
        raise ValueError("runs that do not decode: a number is too large")
    shifts = 5 * (np.arange(len(characters)) - np.repeat(starts, lengths))
    numbers = np.add.reduceat((characters & 31) << shifts, starts)
    negative = characters[starts + lengths - 1] & 16 > 0
    numbers -= np.where(negative, 1 << (5 * lengths), 0)
    for first in (1, 2):
        numbers[first::2] = numbers[first::2].cumsum()
    return numbers
