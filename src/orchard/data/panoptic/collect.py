"""From annotated files to a set: look at every image and map, settle what is wrong, split, fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from orchard.data.collect import places_of_splits, settle
from orchard.data.contracts import Problem
from orchard.data.files import Files, Seen, look_at_all, read_picture
from orchard.data.panoptic.coco import Annotated, Found
from orchard.data.panoptic.contracts import VOID, PanopticData, PanopticRecord, PanopticSplit, Segments
from orchard.data.panoptic.reading import SeenMap, look_at_map, read_ids
from orchard.data.pictures import naming
from orchard.data.settings import DataSettings
from orchard.errors import OrchardError

Good = tuple[Annotated, Seen, SeenMap]


class FileSegments(PanopticSplit):
    """Images and maps in files, decoded when they are needed."""

    def __init__(self, files: Files, records: Sequence[Good], places: Mapping[int, int], channels: int):
        """`places` gives the class of each category."""
        self.files, self.places, self.channels = files, dict(places), channels
        self.images = [image for image, _, _ in records]
        self.pixels = [map.pixels for _, _, map in records]
        self.digests = [seen.digest for _, seen, _ in records]

    def __len__(self) -> int:
        return len(self.images)

    def record(self, index: int) -> PanopticRecord:
        annotated = self.images[index]
        image = read_picture(self.files, annotated.image, self.channels)
        with naming(str(self.files.path / annotated.map)):
            map = numbered(read_ids(self.files, annotated.map), [one.id for one in annotated.segments])
        labels = np.array([self.places[one.category] for one in annotated.segments], np.int64)
        crowd = np.array([one.crowd for one in annotated.segments], bool)
        return PanopticRecord(image, Segments(torch.from_numpy(map), labels, crowd), self.key(index))

    def key(self, index: int) -> str:
        return str(self.files.path / self.images[index].image)

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        segments, pixels = np.zeros((2, len(self.places)), np.int64)
        for annotated, counts in zip(self.images, self.pixels, strict=True):
            for one in annotated.segments:
                segments[self.places[one.category]] += 1
                pixels[self.places[one.category]] += counts[one.id]
        return segments, pixels


def numbered(ids: np.ndarray, listed: Sequence[int]) -> np.ndarray:
    """Ids (H, W) as numbers: n + 1 for the n-th that is listed, VOID for 0 and those that are not; int32."""
    order = np.argsort(listed, kind="stable")
    ordered = np.append(np.asarray(listed, np.int64)[order], -1)  # -1 behind all is no id
    place = np.searchsorted(ordered[:-1], ids)
    numbers = np.append(order + 1, VOID)[place]
    return np.where(ordered[place] == ids, numbers, VOID).astype(np.int32)


def collect(found: Found, settings: DataSettings) -> PanopticData:
    """Make a set of what was found.

    Raises OrchardError where it cannot be one, and for images and segments that are not right, unless `bad_records` is
    "skip"; then they are left out and listed.
    """
    problems: list[Problem] = []
    images = look_at_all(found.files, [one.image for one in found.images], thorough=settings.bad_records == "skip")
    with ThreadPoolExecutor(4) as pool:
        maps = list(pool.map(partial(look_at_map, found.files), [one.map for one in found.images]))
    bad = list(found.problems)
    good: list[Good] = []
    for annotated, seen, map in zip(found.images, images, maps, strict=True):
        if isinstance(seen, str):
            bad.append(Problem(annotated.image, seen))
        elif isinstance(map, str):
            bad.append(Problem(annotated.map, map))
        elif wrong := _wrong(annotated, seen, map):
            bad.append(Problem(annotated.map, wrong))
        else:
            good.append((annotated, seen, map))
    total = len(found.images) + len(found.problems)
    settle(bad, "or their segments are not right", "mend or remove them", settings, problems, total)
    if not good:
        raise OrchardError(f"{found.source} has no image with segments that can be read")
    channels = 1 if all(seen.grey for _, seen, _ in good) else 3
    places = {id: place for place, id in enumerate(found.categories)}
    classes = tuple(one.name for one in found.categories.values())
    splits: dict[str, FileSegments] = {}
    mark = hashlib.sha256(repr(found.categories).encode())
    given, digests = [one.split for one, _, _ in good], [seen.digest for _, seen, _ in good]
    for split, chosen in places_of_splits(given, np.zeros(len(good), np.int64), digests, settings).items():
        records = [good[place] for place in chosen]
        splits[split] = FileSegments(found.files, records, places, channels)
        for annotated, seen, map in records:
            mark.update(f"\n{split}\0{annotated.image}\0".encode(errors="surrogatepass") + seen.digest + map.digest)
            mark.update(repr(annotated.segments).encode())
    return PanopticData(
        "panoptic", found.source, "COCO panoptic", found.reason, classes,
        tuple(one.thing for one in found.categories.values()), channels, splits, mark.hexdigest(),
        tuple(found.categories), tuple(problems),
    )  # fmt: skip


def _wrong(annotated: Annotated, image: Seen, map: SeenMap) -> str:
    """What is wrong with a map that can be read; empty where nothing is."""
    if (image.width, image.height) != (map.width, map.height):
        return f"is {map.width}x{map.height}, its image {annotated.image} is {image.width}x{image.height}"
    listed = [one.id for one in annotated.segments]
    unlisted = sorted(map.pixels.keys() - set(listed))
    if unlisted:
        count = map.pixels[unlisted[0]]
        return f"has {count:,} pixels of segment {unlisted[0]}, which is not listed in segments_info"
    empty = [id for id in listed if id not in map.pixels]
    return f"has no pixel of segment {empty[0]}, which is listed in segments_info" if empty else ""
