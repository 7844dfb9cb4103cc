"""What `orchard data check` reports of images with segments."""

from __future__ import annotations

from orchard.data.checked import Checked
from orchard.data.panoptic.sources import open_panoptic
from orchard.data.settings import DataSettings


def check_panoptic(source: str, settings: DataSettings) -> Checked:
    """Images and segments by class, the share of pixels that each has, and what is wrong with the files."""
    data = open_panoptic(source, settings)
    columns = {name: split.counts() for name, split in data.splits.items()}
    counts = {
        name: {"images": len(data.splits[name]), **dict(zip(data.classes, segments.tolist(), strict=True))}
        for name, (segments, _) in columns.items()
    }
    pixels = sum(column for _, column in columns.values())
    shares = pixels / max(pixels.sum(), 1)  # type: ignore[union-attr]
    made = any(split.endless for split in data.splits.values())
    facts = {
        "things": [name for name, thing in zip(data.classes, data.things, strict=True) if thing],
        "stuff": [name for name, thing in zip(data.classes, data.things, strict=True) if not thing],
        "counts": "segments of each class" + (", in its first images" * made),
        "share of the annotated pixels": {
            name: round(float(share), 4) for name, share in zip(data.classes, shares, strict=True)
        },
    }
    problems = tuple(f"{one.key}: {one.what}" for one in data.problems)
    return Checked(source, data.format, data.reason, counts, facts, problems, data.fingerprint)
