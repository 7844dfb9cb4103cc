"""What `orchard data check` reports of images with boxes: counts by split, and annotations that are worth a look."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from orchard.data.boxes.collect import CUT, FileBoxes
from orchard.data.boxes.contracts import DetectionData, DetectionSplit
from orchard.data.boxes.sources import open_boxes, open_instances
from orchard.data.checked import Checked, spread
from orchard.data.settings import CaptionSource

TINY = 0.01  # of the image's shorter side: 8 pixels where that is resized to 800, as detectors of COCO do


def check_boxes(source: str, settings: CaptionSource) -> Checked:
    """Images and objects by class, sizes of boxes, and what is wrong with the files, their masks too.

    Bad annotations are listed, not refused.
    """
    settings = settings.model_copy(update={"bad_records": "skip"})
    data = open_boxes(source, settings)
    tiny: list[str] = []
    twice: list[str] = []
    sides: list[float] = []
    counts = {name: _count(split, data.classes, tiny, twice, sides) for name, split in data.splits.items()}
    facts: dict[str, Any] = {
        "classes": list(data.classes),
        "box side, pixels (5 %, median, 95 %)": spread(np.array(sides)),
    }
    left_out = [f"{len(found)} {fault}" for fault, found in data.box_faults.items() if found and fault != CUT]
    if left_out:
        facts["boxes left out"] = ", ".join(left_out)
    problems = data.problems
    if data.has_masks:
        problems = open_instances(source, settings).problems
        facts["masks"] = "objects have them"
    if tiny:
        facts["tiny objects"] = f"the longer side is under {TINY:.0%} of the image's shorter side, 8 pixels of 800"
    lists = {
        "tiny object": tuple(tiny),
        "box that several annotations have": tuple(twice),
        "box cut off at the edge of the picture": tuple(data.box_faults.get(CUT, ())),
        **_copies(data),
    }
    reason = "; ".join((data.reason, *data.notes))
    lines = tuple(f"{one.key}: {one.what}" for one in problems)
    return Checked(source, data.format, reason, counts, facts, lines, data.fingerprint, lists)


def _count(
    split: DetectionSplit, classes: tuple[str, ...], tiny: list[str], twice: list[str], sides: list[float]
) -> dict[str, int]:
    """Images and objects of a split; what is tiny and what is there twice goes on its list, the mean of a box's sides
    on the last."""
    by_class = np.zeros(len(classes), np.int64)
    empty = most = small = 0
    for index in range(len(split)):
        if isinstance(split, FileBoxes):
            objects, shorter = split.objects(index), min(split.size(index))
        else:  # an image is made for its objects alone, too
            record = split.record(index)
            objects, shorter = record.objects, min(record.image.shape[1:])
        by_class += np.bincount(objects.labels, minlength=len(classes))
        empty, most = empty + (not len(objects.labels)), max(most, len(objects.labels))
        if not len(objects.labels):
            continue
        names = [classes[label] for label in objects.labels]
        width, height = (objects.boxes[:, 2:] - objects.boxes[:, :2]).T
        sides += np.sqrt(width * height).tolist()
        found = np.flatnonzero(np.maximum(width, height) < TINY * shorter)
        small += len(found)
        tiny += [f"{split.key(index)}: {names[n]} of {width[n]:.3g} x {height[n]:.3g} pixels" for n in found.tolist()]
        by_box: dict[tuple[float, ...], list[str]] = defaultdict(list)
        for name, box in zip(names, objects.boxes.tolist(), strict=True):
            by_box[tuple(box)].append(name)
        twice += [
            f"{split.key(index)}: {', '.join(sorted(several))} ({', '.join(f'{edge:g}' for edge in box)})"
            for box, several in by_box.items()
            if len(several) > 1
        ]
    return {
        "images": len(split), "without objects": empty, "all objects": int(by_class.sum()), "most in one image": most,
        "tiny objects": small, **dict(zip(classes, by_class.tolist(), strict=True)),
    }  # fmt: skip


def _copies(data: DetectionData) -> Mapping[str, tuple[str, ...]]:
    """Images with the same content, across splits and within one. Those that are made are not compared."""
    places: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
    for name, split in data.splits.items():
        if isinstance(split, FileBoxes):
            for index, digest in enumerate(split.digests):
                places[digest].append((name, split.key(index)))
    across, within = [], []
    for group in places.values():
        counts = Counter(split for split, _ in group)
        line = f"{', '.join(key for _, key in group)} ({', '.join(counts)})"
        if len(counts) > 1:
            across.append(line)
        elif len(group) > 1:
            within.append(line)
    return {"image in several splits": tuple(across), "image more than once in one split": tuple(within)}
