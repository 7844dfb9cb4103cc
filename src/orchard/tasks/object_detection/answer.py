"""Answers of a detector: objects on images in files, and copies of the images with boxes drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.errors import OrchardError
from orchard.files import atomic, disk_error
from orchard.inference.artifacts import Artifact
from orchard.inference.image_files import find_images
from orchard.tasks.object_detection.settings import Options

if TYPE_CHECKING:
    from rich.console import Console

    from orchard.tasks.object_detection.pipeline import Answer, ObjectDetector, Thing

Box = tuple[str, float, tuple[float, float, float, float]]  # class, probability, left, top, right and bottom in pixels


@dataclass(frozen=True)
class BoxesArtifact(Artifact):
    """The objects of an image, most likely first; `drawn` is the file of a copy with their boxes."""

    item: str
    boxes: tuple[Box, ...] = ()
    drawn: str = ""
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        if self.error:
            return {"picture": self.item, "error": self.error}
        things = [{"class": label, "probability": p, "box": list(box)} for label, p, box in self.boxes]
        return {"picture": self.item, "objects": things, **({"drawn": self.drawn} if self.drawn else {})}

    def columns(self) -> list[str]:
        return ["picture", "count", "objects", "drawn", "error"]

    def cells(self) -> list[str]:
        """Objects as class, probability, left, top, right and bottom, with semicolons between them."""
        things = (f"{label} {p:.4f} {' '.join(f'{edge:.1f}' for edge in box)}" for label, p, box in self.boxes)
        return [self.item, str(len(self.boxes)), "; ".join(things), self.drawn, self.error]

    @classmethod
    def show(cls, artifacts: Iterator[BoxesArtifact], console: Console) -> None:
        """A table with a line for each object."""
        from rich.table import Table
        from rich.text import Text

        table = Table("picture", "object")
        for name in ("probability", "left", "top", "right", "bottom"):
            table.add_column(name, justify="right")
        for one in artifacts:
            if one.error:
                table.add_row(one.item, Text(one.error, "red"))
                continue
            rows = [(label, f"{p:.1%}", *(f"{edge:.0f}" for edge in box)) for label, p, box in one.boxes]
            for n, row in enumerate(rows or [("nothing",)]):
                table.add_row(one.item if n == 0 else "", *row)
            if one.drawn:
                console.print(f"drawn: {one.drawn}", soft_wrap=True)
        console.print(table)


def answer(folder: Path, items: Sequence[str], options: Options, say: object) -> Iterator[BoxesArtifact]:
    """The objects on every image in `items`: files, folders or patterns. Bad files are answered with what is wrong."""
    paths = find_images(items)
    from orchard.inference.loading import load
    from orchard.tasks.object_detection.pipeline import ObjectDetector

    detector = ObjectDetector(load(folder), precision=options.precision, say=say)  # type: ignore[arg-type]
    for one, drawn in predict_and_draw(detector, paths, options):
        yield BoxesArtifact(one.picture, boxes_of(one), drawn, one.error)


def predict_and_draw(detector: ObjectDetector, paths: Sequence[str], options: Options) -> Iterator[tuple[Answer, str]]:
    """The answer for each image, and the file of its copy, where that is asked for."""
    taken: set[str] = set()
    for one in detector.predict(paths, options.threshold):
        drawn = ""
        if options.draw is not None and not one.error:
            drawn = str(draw(one.picture, one.things, detector.loaded.classes, options.draw, taken))
        yield one, drawn


def boxes_of(answer: Answer) -> tuple[Box, ...]:
    return tuple((thing.label, thing.score, thing.box) for thing in answer.things)


def draw(picture: str, things: Sequence[Thing], classes: Sequence[str], folder: Path, taken: set[str]) -> Path:
    """Write a copy of an image with its objects' boxes (and masks) into a folder, under its own name; of equal ones,
    numbered."""
    from PIL import Image

    from orchard.data.pictures import open_picture, plain
    from orchard.tasks.object_detection.drawing import Drawn, draw_boxes

    name = f"{free_stem(picture, taken)}.jpg"
    with Path(picture).open("rb") as file, open_picture(file) as opened:
        image: Image.Image = plain(opened, 3)
        image.load()  # the file is closed before it is drawn on
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
