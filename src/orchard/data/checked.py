"""What `orchard data check` reports of a kind of data whose pictures are not compared: counts by split, and facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from orchard.data.boxes.contracts import DetectionSplit
from orchard.data.settings import CaptionSource

TINY = 0.01  # share of an image's larger side below which a box counts as tiny


@dataclass(frozen=True)
class Checked:
    """A report: `counts` by split, then what there is to know, by name."""

    source: str
    format: str
    reason: str
    counts: Mapping[str, Mapping[str, int]]
    facts: Mapping[str, Any]
    problems: tuple[str, ...] = ()
    fingerprint: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check_boxes(source: str, settings: CaptionSource) -> Checked:
    """Images and objects by class, sizes of boxes, and what is wrong with the files, their masks too."""
    from orchard.data.boxes.sources import open_boxes, open_instances

    data = open_boxes(source, settings)
    counts = {name: _count_objects(split, data.classes) for name, split in data.splits.items()}
    train = next(iter(data.splits.values()))
    boxes = np.concatenate([train.objects(n).boxes for n in range(min(len(train), 500))])
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    facts = {"classes": list(data.classes), "box side, pixels (5 %, median, 95 %)": _spread(sides)}
    found = data.problems
    if data.has_masks:
        found = open_instances(source, settings.model_copy(update={"bad_records": "skip"})).problems
        facts["masks"] = "objects have them"
    problems = tuple(f"{one.key}: {one.what}" for one in found)
    return Checked(source, data.format, data.reason, counts, facts, problems, data.fingerprint)


def _count_objects(split: DetectionSplit, classes: tuple[str, ...]) -> dict[str, int]:
    found = np.zeros(len(classes), np.int64)
    empty = 0
    for index in range(len(split)):
        labels = split.objects(index).labels
        found += np.bincount(labels, minlength=len(classes))
        empty += not len(labels)
    return {"images": len(split), "without objects": empty, **dict(zip(classes, found.tolist(), strict=True))}


def check_masks(source: str, settings: CaptionSource) -> Checked:
    """Images and pixels by class, and what is wrong with the files."""
    from orchard.data.masks.sources import open_masks

    data = open_masks(source, settings)
    counts = {
        name: {"images": len(split), **dict(zip(data.classes, split.pixels().tolist(), strict=True))}
        for name, split in data.splits.items()
    }
    made = any(split.endless for split in data.splits.values())
    facts = {"classes": list(data.classes), "counts": "pixels of each class" + (", in its first images" * made)}
    problems = tuple(f"{one.key}: {one.what}" for one in data.problems)
    return Checked(source, data.format, data.reason, counts, facts, problems, data.fingerprint)


def _spread(values: np.ndarray) -> list[float]:
    return [round(float(value), 1) for value in np.percentile(values, [5, 50, 95])] if len(values) else []


def check_environment(source: str, settings: CaptionSource) -> Checked:
    """What there is to observe and to do."""
    from orchard.data.open_environment import open_environment

    data = open_environment(source)
    facts = {"observation": list(data.observation), "actions": data.actions, "action names": list(data.action_names),
             "return that counts as solved": data.solved_at}  # fmt: skip
    reason = "its source begins with gym: or python:"
    return Checked(source, "environment", reason, {}, facts, (), data.fingerprint)


def check_pairs(source: str, settings: CaptionSource) -> Checked:
    """Pairs by split, and how long their sides are in words."""
    from orchard.data.pairs import open_pairs
    from orchard.data.settings import TextPairSource

    known = settings.model_dump(include=set(TextPairSource.model_fields) & set(type(settings).model_fields))
    data = open_pairs(source, TextPairSource.model_validate(known))
    train = data.splits["train"]
    sample = [train[n] for n in range(min(len(train), 2000))]
    facts = {
        f"words, {language} (5 %, median, 95 %)": _spread(np.array([len(pair[side].split()) for pair in sample]))
        for side, language in enumerate(data.languages)
    }
    counts = {name: {"pairs": len(split)} for name, split in data.splits.items()}
    problems = tuple(f"{one.key}: {one.what}" for one in data.problems)
    return Checked(source, data.format, data.reason, counts, facts, problems, data.fingerprint)
