"""Answers with masks: those of a detector, and the mask of each object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchard.inference.image_files import find_images
from orchard.tasks.instance_segmentation.settings import Options
from orchard.tasks.object_detection.answer import BoxesArtifact, answers_of, boxes_of


@dataclass(frozen=True)
class InstancesArtifact(BoxesArtifact):
    """The objects of an image with their masks as COCO has them."""

    masks: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        found = super().to_json()
        for thing, mask in zip(found.get("objects", ()), self.masks, strict=True):
            thing["segmentation"] = mask
        return found

    def columns(self) -> list[str]:
        return [*super().columns(), "crops"]

    def cells(self) -> list[str]:
        return [*super().cells(), "; ".join(self.crops)]


def answer(folder: Path, items: Sequence[str], options: Options, say: object) -> Iterator[InstancesArtifact]:
    """The objects on every image in `items`: files, folders or patterns. Bad files are answered with what is wrong."""
    paths = find_images(items)
    from orchard.inference.loading import load
    from orchard.tasks.instance_segmentation.pipeline import InstanceSegmenter

    segmenter = InstanceSegmenter(load(folder), precision=options.precision, say=say)  # type: ignore[arg-type]
    for one, drawn, crops in answers_of(segmenter, paths, options):
        things: Any = one.things
        masks = tuple(thing.segmentation for thing in things)
        yield InstancesArtifact(one.picture, boxes_of(one), drawn, one.error, crops, masks)
