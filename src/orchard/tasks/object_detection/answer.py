"""Answers of a detector: objects on images in files, and what is written of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.inference.artifacts import Artifact
from orchard.inference.image_files import find_images
from orchard.tasks.object_detection.settings import Options

if TYPE_CHECKING:
    from rich.console import Console

    from orchard.tasks.object_detection.pipeline import Answer, ObjectDetector

Box = tuple[str, float, tuple[float, float, float, float]]  # class, probability, left, top, right and bottom in pixels


@dataclass(frozen=True)
class BoxesArtifact(Artifact):
    """The objects of an image, most likely first; `drawn` is the file of a copy with their boxes, `crops` those of the
    objects cut out."""

    item: str
    boxes: tuple[Box, ...] = ()
    drawn: str = ""
    error: str = ""
    crops: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        if self.error:
            return {"picture": self.item, "error": self.error}
        things: list[dict[str, Any]] = [
            {"class": label, "probability": p, "box": list(box)} for label, p, box in self.boxes
        ]
        if self.crops:
            things = [thing | {"crop": crop} for thing, crop in zip(things, self.crops, strict=True)]
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
    for one, drawn, crops in answers_of(detector, paths, options):
        yield BoxesArtifact(one.picture, boxes_of(one), drawn, one.error, crops)


def answers_of(
    detector: ObjectDetector, paths: Sequence[str], options: Options
) -> Iterator[tuple[Answer, str, tuple[str, ...]]]:
    """The answer for each image, the file of its copy and those of its objects, where these are asked for.

    COCO's file is written when all images are answered.
    """
    from orchard.tasks.object_detection.written import CocoTable, cut_out, draw

    drawn_names: set[str] = set()
    cut_names: set[str] = set()
    table = CocoTable(detector.loaded.classes)
    for one in detector.predict(paths, options.threshold):
        drawn = ""
        crops: tuple[str, ...] = ()
        if options.draw is not None and not one.error:
            drawn = str(draw(one.picture, one.things, detector.loaded.classes, options.draw, drawn_names))
        if options.crops is not None:
            crops = cut_out(one.picture, one.things, options.crops, cut_names)
        if options.coco is not None and not one.error:
            table.add(one)
        yield one, drawn, crops
    if options.coco is not None:
        table.write(options.coco)


def boxes_of(answer: Answer) -> tuple[Box, ...]:
    return tuple((thing.label, thing.score, thing.box) for thing in answer.things)
