"""Answers of a panoptic model: the segments of images in files, as COCO's panoptic form and as overlays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.errors import OrchardError
from orchard.files import atomic, disk_error
from orchard.inference.artifacts import Artifact
from orchard.inference.image_files import find_images
from orchard.tasks.panoptic_segmentation.settings import Options

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console

    from orchard.tasks.panoptic_segmentation.pipeline import Answer, PanopticSegmenter, Segment

TABLE, MAPS = "panoptic.json", "panoptic"  # the file and the folder of COCO's form


@dataclass(frozen=True)
class SegmentsArtifact(Artifact):
    """The segments of an image, largest first; the files of their map and overlay, where they were asked for."""

    item: str
    segments: tuple[Segment, ...] = ()
    map: str = ""
    overlay: str = ""
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        if self.error:
            return {"picture": self.item, "error": self.error}
        rows = [
            {"id": n, "class": one.label, "probability": one.score, "thing": one.thing, "share": one.share}
            for n, one in enumerate(self.segments, 1)
        ]
        files = {"map": self.map, "overlay": self.overlay} if self.map else {}
        return {"picture": self.item, "segments": rows, **files}

    def columns(self) -> list[str]:
        return ["picture", "count", "segments", "map", "overlay", "error"]

    def cells(self) -> list[str]:
        """Segments as class, probability and share of the image, with semicolons between them."""
        words = "; ".join(f"{one.label} {one.score:.4f} {one.share:.4f}" for one in self.segments)
        return [self.item, str(len(self.segments)), words, self.map, self.overlay, self.error]

    @classmethod
    def show(cls, artifacts: Iterator[SegmentsArtifact], console: Console) -> None:
        """A table with a line for each segment."""
        from rich.table import Table
        from rich.text import Text

        table = Table("picture", "segment", "")
        for name in ("probability", "share"):
            table.add_column(name, justify="right")
        for one in artifacts:
            if one.error:
                table.add_row(one.item, Text(one.error, "red"))
                continue
            rows = [
                (part.label, "thing" if part.thing else "stuff", f"{part.score:.1%}", f"{part.share:.1%}")
                for part in one.segments
            ]
            for n, row in enumerate(rows or [("nothing",)]):
                table.add_row(one.item if n == 0 else "", *row)
            if one.map:
                console.print(f"written: {one.map}, {one.overlay}", soft_wrap=True)
        console.print(table)


def answer(folder: Path, items: Sequence[str], options: Options, say: object) -> Iterator[SegmentsArtifact]:
    """The segments of every image in `items`: files, folders or patterns. Bad files are answered with what is wrong."""
    paths = find_images(items)
    from orchard.inference.loading import load
    from orchard.tasks.panoptic_segmentation.pipeline import PanopticSegmenter

    segmenter = PanopticSegmenter(load(folder), precision=options.precision, say=say)  # type: ignore[arg-type]
    written = Written(segmenter, options.out) if options.out is not None else None
    for one in segmenter.predict(paths, options.threshold):
        files = ("", "")
        if written is not None and one.map is not None:
            files = written.add(one)
        yield SegmentsArtifact(one.picture, one.segments, *files, one.error)
    if written is not None:
        written.finish()


class Written:
    """A folder of answers: panoptic.json and panoptic/NAME.png in COCO's form, and NAME-overlay.png."""

    def __init__(self, segmenter: PanopticSegmenter, folder: Path):
        self.segmenter, self.folder = segmenter, folder
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.taken: set[str] = set()

    def add(self, one: Answer) -> tuple[str, str]:
        """Write the map and the overlay of an image, of equal names the later numbered; gives both paths."""
        from orchard.data.panoptic.drawing import draw_segments, segment_colours
        from orchard.data.panoptic.reading import ids_image
        from orchard.data.pictures import open_picture, plain

        assert one.map is not None
        name, number = Path(one.picture).stem, 2
        while name in self.taken:
            name, number = f"{Path(one.picture).stem}-{number}", number + 1
        self.taken.add(name)
        classes = self.segmenter.loaded.classes
        labels = [classes.index(part.label) for part in one.segments]
        with Path(one.picture).open("rb") as file, open_picture(file) as picture:
            colours, words = segment_colours(labels, self.segmenter.things), [part.label for part in one.segments]
            overlay = draw_segments(plain(picture, 3), one.map, colours, words)
        map_path, overlay_path = self.folder / MAPS / f"{name}.png", self.folder / f"{name}-overlay.png"
        self._save(ids_image(one.map), map_path)
        self._save(overlay, overlay_path)
        height, width = one.map.shape
        id, ids = len(self.images) + 1, self._category_ids()
        image = {"id": id, "file_name": Path(one.picture).name, "height": height, "width": width}
        self.images.append(image)
        segments = [
            {"id": n, "category_id": ids[label], "area": int((one.map == n).sum()), "score": part.score, "iscrowd": 0}
            for n, (label, part) in enumerate(zip(labels, one.segments, strict=True), 1)
        ]
        self.annotations.append({"image_id": id, "file_name": map_path.name, "segments_info": segments})
        return str(map_path), str(overlay_path)

    def finish(self) -> None:
        """Write the table."""
        classes = zip(self._category_ids(), self.segmenter.loaded.classes, self.segmenter.things, strict=True)
        categories = [{"id": id, "name": name, "isthing": int(thing)} for id, name, thing in classes]
        table = {"images": self.images, "annotations": self.annotations, "categories": categories}
        path = self.folder / TABLE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic(path) as out:
                out.write(json.dumps(table).encode())
        except OSError as error:
            raise disk_error(error, path, "make room, or leave --out out") from None

    def _category_ids(self) -> Sequence[int]:
        """What the data called each class; an official checkpoint's classes are COCO's numbers themselves."""
        known: Sequence[int] | None = self.segmenter.loaded.facts.get("category_ids")
        return known or range(len(self.segmenter.loaded.classes))

    def _save(self, image: Image.Image, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as out:
                image.save(out, "PNG")
        except FileExistsError:
            raise OrchardError(f"{path.parent} is a file; name a folder with --out") from None
        except OSError as error:
            raise disk_error(error, path, "make room, or leave --out out") from None
