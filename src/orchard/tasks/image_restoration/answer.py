"""Answers of image restoration: clean images as PNG files, each beside what it was made of in another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.inference.artifacts import Artifact
from orchard.inference.image_files import find_images
from orchard.tasks.image_restoration.settings import Options
from orchard.tasks.super_resolution.answer import beside, read_truth, side_by_side, targets

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console

NAMES = ("psnr", "ssim", "degraded_psnr", "degraded_ssim")


@dataclass(frozen=True)
class RestoredArtifact(Artifact):
    """A restored image in a file, and how near it is to the truth where that is known."""

    item: str
    image: str = ""
    compared: str = ""
    size: tuple[int, int] = (0, 0)  # width and height in pixels
    metrics: tuple[tuple[str, float], ...] = ()
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        if self.error:
            return {"picture": self.item, "error": self.error}
        files = {"picture": self.item, "image": self.image, "compared": self.compared}
        return {**files, "size": list(self.size), **dict(self.metrics)}

    def columns(self) -> list[str]:
        return ["picture", "image", "width", "height", *(name for name, _ in self.metrics), "error"]

    def cells(self) -> list[str]:
        numbers = ["" if self.error else f"{value:.4f}" for _, value in self.metrics]
        return [self.item, self.image, *map(str, self.size), *numbers, self.error]

    @classmethod
    def show(cls, artifacts: Iterator[RestoredArtifact], console: Console) -> None:
        """A table with a line for each image."""
        from rich.table import Table
        from rich.text import Text

        table = Table("picture", "size", "image", "PSNR (as given)")
        for one in artifacts:
            if one.error:
                table.add_row(one.item, "", Text(one.error, "red"), "")
                continue
            found = dict(one.metrics)
            said = f"{found['psnr']:.2f} dB ({found['degraded_psnr']:.2f})" if found else ""
            table.add_row(one.item, f"{one.size[0]} x {one.size[1]}", one.image, said)
        console.print(table)


def answer(
    folder: Path, items: Sequence[str], options: Options, say: Callable[[str], None]
) -> Iterator[RestoredArtifact]:
    """Every image in `items` (files, folders or patterns) restored. Bad files are answered with what is wrong.

    Raises UsageError where a file that would be written is there, and for no truth at all where some is named.
    """
    paths = find_images(items)
    from orchard.inference.loading import load
    from orchard.inference.png_files import save_picture
    from orchard.tasks.image_restoration.pipeline import ImageRestorer

    restorer = ImageRestorer(load(folder), sigma=options.sigma, precision=options.precision, tile=options.tile, say=say)
    files = targets(paths, options.out or Path("restored"), "restored")
    truths = beside(paths, options.truth)
    nothing = tuple((name, float("nan")) for name in NAMES if options.truth)  # so that every line has their columns
    for path, file, found in zip(paths, files, restorer.predict(paths), strict=True):
        if found.image is None or found.given is None:
            yield RestoredArtifact(path, error=found.error, metrics=nothing)
            continue
        shown, metrics = [found.given, found.image], tuple[tuple[str, float], ...]()
        if options.truth:
            truth = read_truth(truths.get(path), found.image, 1)
            if isinstance(truth, str):
                yield RestoredArtifact(path, error=truth, metrics=nothing)
                continue
            shown.append(truth)
            metrics = compared(found.image, found.given, truth)
        save_picture(found.image, file)
        shown_file = file.with_stem(f"{file.stem}_compared")
        save_picture(side_by_side(shown), shown_file)
        yield RestoredArtifact(path, str(file), str(shown_file), found.image.size, metrics)


def compared(image: Image.Image, given: Image.Image, truth: Image.Image) -> tuple[tuple[str, float], ...]:
    from torchvision.transforms.functional import pil_to_tensor

    from orchard.tasks.super_resolution.metrics import psnr, ssim

    found, before, true = (pil_to_tensor(one).float() for one in (image, given, truth))
    values = (psnr(found, true), ssim(found, true), psnr(before, true), ssim(before, true))
    return tuple(zip(NAMES, values, strict=True))
