"""What is written of a detector's answers: images with boxes and masks drawn, objects cut out, COCO's JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from orchard.data.boxes.drawing import Drawn, draw_boxes
from orchard.data.pictures import open_picture, plain
from orchard.errors import OrchardError
from orchard.files import atomic, disk_error
from orchard.tasks.object_detection.pipeline import Answer, Thing


def draw(picture: str, things: Sequence[Thing], classes: Sequence[str], folder: Path, taken: set[str]) -> Path:
    """Write a copy of an image with its objects' boxes (and masks) into a folder, under its own name; of equal ones,
    numbered."""
    name = f"{free_stem(picture, taken)}.jpg"
    image = _read(picture)
    boxes = [
        Drawn(one.box, f"{one.label} {one.score:.0%}", classes.index(one.label), one.mask) for one in reversed(things)
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(folder / name) as out:
            draw_boxes(image, boxes).save(out, "JPEG", quality=92)
    except FileExistsError:
        raise OrchardError(f"{folder} is a file; name a folder with --draw") from None
    except OSError as error:
        raise disk_error(error, folder / name, "make room, or leave --draw out") from None
    return folder / name


def free_stem(picture: str, taken: set[str]) -> str:
    """The name of an image without its ending; where that is taken, with a number. It is taken from then on."""
    stem, number = Path(picture).stem, 2
    while stem in taken:
        stem, number = f"{Path(picture).stem}-{number}", number + 1
    taken.add(stem)
    return stem


def _read(picture: str) -> Image.Image:
    """A picture of RGB, read whole, so that its file is closed."""
    with Path(picture).open("rb") as file, open_picture(file) as opened:
        image: Image.Image = plain(opened, 3)
        image.load()
    return image


def cut_out(picture: str, things: Sequence[Thing], folder: Path, taken: set[str]) -> tuple[str, ...]:
    """Write each object of an image as `NAME-1.png` and so on, the most likely first: what is in its box, and where it
    has a mask, transparent beside it. Gives the paths."""
    if not things:
        return ()
    stem = free_stem(picture, taken)
    image = _read(picture).convert("RGB")
    paths = []
    for number, thing in enumerate(things, 1):
        path = folder / f"{stem}-{number}.png"
        whole = image.copy()
        if thing.mask is not None:
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
        for thing in answer.things:
            if not thing.area:  # files with a box or a mask of nothing are refused
                continue
            left, top, right, bottom = thing.box
            row = {
                "id": len(self.annotations) + 1, "image_id": len(self.images),
                "category_id": self.numbers[thing.label], "bbox": [left, top, right - left, bottom - top],
                "score": thing.score, "area": thing.area, "iscrowd": 0,
            }  # fmt: skip
            self.annotations.append(row if thing.segmentation is None else row | {"segmentation": thing.segmentation})

    def write(self, path: Path) -> None:
        categories = [{"id": n, "name": name} for name, n in self.numbers.items()]
        table = {"images": self.images, "annotations": self.annotations, "categories": categories}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as file:
                file.write(json.dumps(table).encode())
        except OSError as error:
            raise disk_error(error, path, "make room, or name another file with --coco") from None
