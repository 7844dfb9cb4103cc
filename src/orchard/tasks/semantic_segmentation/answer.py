"""Answers of a network that segments: shares of classes, and masks and overlays as files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.errors import OrchardError
from orchard.files import atomic, disk_error
from orchard.inference.artifacts import Artifact
from orchard.inference.image_files import find_images
from orchard.tasks.semantic_segmentation.settings import Options

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from orchard.data.masks.contracts import Colour

SHOWN = 5  # classes of an image that the table for people lists


@dataclass(frozen=True)
class MaskArtifact(Artifact):
    """The shares of an image's classes, largest first; the files of its mask and overlay, where they were asked for."""

    item: str
    shares: tuple[tuple[str, float], ...] = ()
    mask: str = ""
    overlay: str = ""
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        if self.error:
            return {"picture": self.item, "error": self.error}
        files = {"mask": self.mask, "overlay": self.overlay} if self.mask else {}
        return {"picture": self.item, "shares": dict(self.shares), **files}

    def columns(self) -> list[str]:
        return ["picture", "shares", "mask", "overlay", "error"]

    def cells(self) -> list[str]:
        """Shares as class and share, with semicolons between them."""
        shares = "; ".join(f"{name} {share:.4f}" for name, share in self.shares)
        return [self.item, shares, self.mask, self.overlay, self.error]

    @classmethod
    def show(cls, artifacts: Iterator[MaskArtifact], console: Console) -> None:
        """A table with a line for each class of an image."""
        from rich.table import Table
        from rich.text import Text

        table = Table("picture", "class")
        table.add_column("share", justify="right")
        for one in artifacts:
            if one.error:
                table.add_row(one.item, Text(one.error, "red"))
            for n, (name, share) in enumerate(one.shares[:SHOWN]):
                table.add_row(one.item if n == 0 else "", name, f"{share:.1%}")
            if len(one.shares) > SHOWN:
                rest = one.shares[SHOWN:]
                table.add_row("", f"and {len(rest)} more", f"{sum(share for _, share in rest):.1%}")
            if one.mask:
                console.print(f"written: {one.mask}, {one.overlay}", soft_wrap=True)
        console.print(table)


def answer(folder: Path, items: Sequence[str], options: Options, say: object) -> Iterator[MaskArtifact]:
    """The classes of every image in `items`: files, folders or patterns. Bad files are answered with what is wrong."""
    paths = find_images(items)
    from orchard.inference.loading import load
    from orchard.tasks.semantic_segmentation.pipeline import Segmenter

    segmenter = Segmenter(load(folder), precision=options.precision, say=say)  # type: ignore[arg-type]
    taken: set[str] = set()
    for one in segmenter.predict(paths):
        files = ("", "")
        if options.out is not None and one.mask is not None:
            files = write_files(one.picture, one.mask, segmenter.colours, options.out, taken)
        yield MaskArtifact(one.picture, tuple(one.shares.items()), *files, one.error)


def write_files(
    picture: str, mask: np.ndarray, colours: Sequence[Colour], folder: Path, taken: set[str]
) -> tuple[str, str]:
    """Write the mask of an image as `NAME.png`, of class numbers with a palette, and over the image as
    `NAME-overlay.png`; of equal names the later are numbered. Gives both paths."""
    from orchard.data.masks.colours import overlay, palette_image
    from orchard.data.pictures import open_picture, plain

    name, number = Path(picture).stem, 2
    while {name, f"{name}-overlay"} & taken:
        name, number = f"{Path(picture).stem}-{number}", number + 1
    taken |= {name, f"{name}-overlay"}
    with Path(picture).open("rb") as file, open_picture(file) as opened:
        drawn = overlay(plain(opened, 3), mask, colours)
    images = {folder / f"{name}.png": palette_image(mask, colours), folder / f"{name}-overlay.png": drawn}
    for path, image in images.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic(path) as out:
                image.save(out, "PNG")
        except FileExistsError:
            raise OrchardError(f"{folder} is a file; name a folder with --out") from None
        except OSError as error:
            raise disk_error(error, path, "make room, or leave --out out") from None
    mask_path, overlay_path = map(str, images)
    return mask_path, overlay_path
