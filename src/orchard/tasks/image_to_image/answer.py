"""Answers of image to image: translated pictures as PNG files, each beside what it was made of in another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.errors import UsageError
from orchard.inference.artifacts import Artifact
from orchard.inference.image_files import find_images
from orchard.tasks.image_to_image.settings import Options
from orchard.tasks.super_resolution.answer import references_of, side_by_side, targets

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console

ON_SHEET, THUMB, IN_ROW = 48, 128, 4  # pictures on a sheet, pixels a side of each, and how many stand in a row
SHEET = "sheet.png"


@dataclass(frozen=True)
class TranslatedArtifact(Artifact):
    """A translated picture in a file, one beside what it was made of, and where the model looked, if asked for."""

    item: str
    image: str = ""
    compared: str = ""
    heat: str = ""
    size: tuple[int, int] = (0, 0)  # width and height in pixels
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        if self.error:
            return {"picture": self.item, "error": self.error}
        files = {"image": self.image, "compared": self.compared, **({"heat": self.heat} if self.heat else {})}
        return {"picture": self.item, **files, "size": list(self.size)}

    def columns(self) -> list[str]:
        return ["picture", "image", "width", "height", "error"]

    def cells(self) -> list[str]:
        return [self.item, self.image, *map(str, self.size), self.error]

    @classmethod
    def show(cls, artifacts: Iterator[TranslatedArtifact], console: Console) -> None:
        """A table with a line for each picture."""
        from rich.table import Table
        from rich.text import Text

        table = Table("picture", "size", "image")
        for one in artifacts:
            said = Text(one.error, "red") if one.error else one.image
            table.add_row(one.item, "" if one.error else f"{one.size[0]} x {one.size[1]}", said)
        console.print(table)


def answer(
    folder: Path, items: Sequence[str], options: Options, say: Callable[[str], None]
) -> Iterator[TranslatedArtifact]:
    """Every picture in `items` (files, folders or patterns) translated, and a sheet where there are several. Bad files
    are answered with what is wrong.

    Raises UsageError where a file that would be written is there.
    """
    paths = find_images(items)
    from PIL import ImageOps
    from torchvision.transforms.functional import pil_to_tensor

    from orchard.inference.loading import load
    from orchard.inference.png_files import save_picture, sheet
    from orchard.tasks.image_to_image.pipeline import PictureTranslator
    from orchard.tasks.image_to_image.translating import to_picture

    translator = PictureTranslator(
        load(folder), direction=options.direction, keep_size=options.keep_size, heat=options.heat,
        precision=options.precision,
    )  # fmt: skip
    out = options.out or Path("translated")
    files = targets(paths, out, "translated")
    whole = out / SHEET
    if whole.exists():
        raise UsageError(f"{whole} is there already; name another folder with --out")
    masks = None if options.mask is None else references_of(paths, options.mask)
    thumbs: list[Image.Image] = []
    for path, file, found in zip(paths, files, translator.predict(paths, masks), strict=True):
        if found.image is None or found.given is None:
            yield TranslatedArtifact(path, error=found.error)
            continue
        save_picture(found.image, file)
        both = [to_picture(pil_to_tensor(one)).convert("RGB") for one in (found.given, found.image)]
        compared = file.with_stem(f"{file.stem}_compared")
        save_picture(side_by_side(both), compared)
        heat = file.with_stem(f"{file.stem}_heat")
        if found.heat is not None:
            save_picture(found.heat, heat)
            both.insert(1, found.heat)
        if len(thumbs) < ON_SHEET:
            thumbs.append(side_by_side([ImageOps.pad(one, (THUMB, THUMB), color="white") for one in both]))
        looked = str(heat) if found.heat is not None else ""
        yield TranslatedArtifact(path, str(file), str(compared), looked, found.image.size)
    if len(thumbs) > 1:
        save_picture(sheet(thumbs, min(IN_ROW, len(thumbs))), whole)
        first = "" if len(paths) <= ON_SHEET else f" (the first {ON_SHEET})"
        say(f"each picture beside its translation{first}: {whole}")
