"""Answers with masks: drawn on copies of the images, cut out of them, and in the form of COCO's files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.errors import OrchardError
from orchard.files import atomic, disk_error
from orchard.inference.image_files import find_images
from orchard.tasks.instance_segmentation.settings import Options
from orchard.tasks.object_detection.answer import BoxesArtifact, boxes_of, free_stem, predict_and_draw

if TYPE_CHECKING:
    from orchard.tasks.instance_segmentation.pipeline import Instance
    from orchard.tasks.object_detection.pipeline import Answer


@dataclass(frozen=True)
class InstancesArtifact(BoxesArtifact):
    """The objects of an image with their masks as COCO has them, and the files of those that were cut out."""

    masks: tuple[dict[str, Any], ...] = ()
    crops: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        found = super().to_json()
        for thing, mask in zip(found.get("objects", ()), self.masks, strict=True):
            thing["segmentation"] = mask
        for thing, crop in zip(found.get("objects", ()), self.crops, strict=False):
            thing["crop"] = crop
        return found

    def columns(self) -> list[str]:
        return [*super().columns(), "crops"]

    def cells(self) -> list[str]:
        return [*super().cells(), "; ".join(self.crops)]


def answer(folder: Path, items: Sequence[str], options: Options, say: object) -> Iterator[InstancesArtifact]:
    """The objects on every image in `items`: files, folders or patterns. Bad files are answered with what is wrong.

    COCO's file is written when all images are answered.
    """
    paths = find_images(items)
    from orchard.inference.loading import load
    from orchard.tasks.instance_segmentation.pipeline import InstanceSegmenter

    segmenter = InstanceSegmenter(load(folder), precision=options.precision, say=say)  # type: ignore[arg-type]
    taken: set[str] = set()
    table = CocoTable(segmenter.loaded.classes)
    for one, drawn in predict_and_draw(segmenter, paths, options):
        things: Any = one.things
        crops = cut_out(one.picture, things, options.crops, taken) if options.crops is not None else ()
        if options.coco is not None and not one.error:
            table.add(one)
        masks = tuple(thing.segmentation for thing in things)
        yield InstancesArtifact(one.picture, boxes_of(one), drawn, one.error, masks, crops)
    if options.coco is not None:
        table.write(options.coco)


def cut_out(picture: str, things: Sequence[Instance], folder: Path, taken: set[str]) -> tuple[str, ...]:
    """Write each object of an image as `NAME-1.png` and so on, the most likely first: what is in its box, transparent
    beside its mask. Gives the paths."""
    import numpy as np
    from PIL import Image

    from orchard.data.pictures import open_picture, plain

    if not things:
        return ()
    stem = free_stem(picture, taken)
    with Path(picture).open("rb") as file, open_picture(file) as opened:
        image: Image.Image = plain(opened, 3).convert("RGB")
        image.load()
    paths = []
    for number, thing in enumerate(things, 1):
        path = folder / f"{stem}-{number}.png"
        whole = image.copy()
        whole.putalpha(Image.fromarray(thing.mask.astype(np.uint8) * 255))
        left, top, right, bottom = thing.box
        corner = min(int(left), image.width - 1), min(int(top), image.height - 1)
        cut = whole.crop((*corner, max(int(np.ceil(right)), corner[0] + 1), max(int(np.ceil(bottom)), corner[1] + 1)))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic(path) as out:
                cut.save(out, "PNG")
        except FileExistsError:
            raise OrchardError(f"{folder} is a file; name a folder with --crops") from None
        except OSError as error:
            raise disk_error(error, path, "make room, or leave --crops out") from None
        paths.append(str(path))
    return tuple(paths)


class CocoTable:
    """Answers in the form of COCO's JSON, which is also read as data; classes are numbered from 1."""

    def __init__(self, classes: Sequence[str]):
        self.numbers = {name: n for n, name in enumerate(classes, 1)}
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, answer: Answer) -> None:
        height, width = answer.size
        self.images.append({"id": len(self.images) + 1, "file_name": answer.picture, "height": height, "width": width})
        things: Any = answer.things
        for thing in things:
            if not thing.area:  # files with a mask of nothing are refused
                continue
            left, top, right, bottom = thing.box
            row = {
                "id": len(self.annotations) + 1, "image_id": len(self.images),
                "category_id": self.numbers[thing.label], "bbox": [left, top, right - left, bottom - top],
                "score": thing.score, "segmentation": thing.segmentation, "area": thing.area, "iscrowd": 0,
            }  # fmt: skip
            self.annotations.append(row)

    def write(self, path: Path) -> None:
        categories = [{"id": n, "name": name} for name, n in self.numbers.items()]
        table = {"images": self.images, "annotations": self.annotations, "categories": categories}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as file:
                file.write(json.dumps(table).encode())
        except OSError as error:
            raise disk_error(error, path, "make room, or name another file with --coco") from None
