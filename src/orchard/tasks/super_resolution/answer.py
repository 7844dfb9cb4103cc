"""Answers of super-resolution: enlarged images as PNG files, each beside its bicubic enlargement in another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.errors import UsageError
from orchard.inference.artifacts import Artifact
from orchard.inference.image_files import find_images
from orchard.tasks.super_resolution.settings import Options

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console

GAP = 4  # pixels between images that are shown side by side


@dataclass(frozen=True)
class EnlargedArtifact(Artifact):
    """An enlarged image in a file, its sizes, and how near it is to the truth where that is known."""

    item: str
    image: str = ""
    compared: str = ""
    size: tuple[int, int] = (0, 0)  # width and height in pixels, as given
    enlarged: tuple[int, int] = (0, 0)
    metrics: tuple[tuple[str, float], ...] = ()
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        if self.error:
            return {"picture": self.item, "error": self.error}
        files = {"picture": self.item, "image": self.image, "compared": self.compared}
        return {**files, "size": list(self.size), "enlarged": list(self.enlarged), **dict(self.metrics)}

    def columns(self) -> list[str]:
        names = [name for name, _ in self.metrics]
        return ["picture", "image", "width", "height", "enlarged_width", "enlarged_height", *names, "error"]

    def cells(self) -> list[str]:
        numbers = ["" if self.error else f"{value:.4f}" for _, value in self.metrics]
        return [self.item, self.image, *map(str, (*self.size, *self.enlarged)), *numbers, self.error]

    @classmethod
    def show(cls, artifacts: Iterator[EnlargedArtifact], console: Console) -> None:
        """A table with a line for each image."""
        from rich.table import Table
        from rich.text import Text

        table = Table("picture", "size", "enlarged", "image", "PSNR (bicubic)")
        for one in artifacts:
            if one.error:
                table.add_row(one.item, "", "", Text(one.error, "red"), "")
                continue
            found = dict(one.metrics)
            said = f"{found['psnr']:.2f} dB ({found['bicubic_psnr']:.2f})" if "psnr" in found else ""
            sizes = (f"{width} x {height}" for width, height in (one.size, one.enlarged))
            table.add_row(one.item, *sizes, one.image, said)
        console.print(table)


def answer(
    folder: Path, items: Sequence[str], options: Options, say: Callable[[str], None]
) -> Iterator[EnlargedArtifact]:
    """Every image in `items` (files, folders or patterns) enlarged. Bad files are answered with what is wrong.

    Raises UsageError where a file that would be written is there, and for no truth at all where some is named.
    """
    paths = find_images(items)
    from orchard.inference.loading import load
    from orchard.inference.png_files import save_picture
    from orchard.tasks.super_resolution.metrics import METRICS
    from orchard.tasks.super_resolution.pipeline import ImageUpscaler

    upscaler = ImageUpscaler(
        load(folder), scale=options.scale, precision=options.precision, tile=options.tile,
        self_ensemble=options.self_ensemble, say=say,
    )  # fmt: skip
    out = options.out or Path("enlarged")
    files = targets(paths, out, f"x{upscaler.scale}")
    truths = beside(paths, options.truth)
    references = None if options.reference is None else references_of(paths, options.reference)
    names = (*METRICS, *(f"bicubic_{name}" for name in METRICS)) if options.truth else ()
    nothing = tuple((name, float("nan")) for name in names)  # so that every line of a table has their columns
    for path, file, found in zip(paths, files, upscaler.predict(paths, references), strict=True):
        if found.image is None or found.bicubic is None:
            yield EnlargedArtifact(path, error=found.error, metrics=nothing)
            continue
        shown, metrics = [found.bicubic, found.image], tuple[tuple[str, float], ...]()
        if options.truth:
            truth = read_truth(truths.get(path), found.image, upscaler.scale)
            if isinstance(truth, str):
                yield EnlargedArtifact(path, error=truth, metrics=nothing)
                continue
            shown.append(truth)
            metrics = compared(names, found.image, found.bicubic, truth, upscaler.scale)
        save_picture(found.image, file)
        compared_file = file.with_stem(f"{file.stem}_compared")
        save_picture(side_by_side(shown), compared_file)
        size = (found.image.width // upscaler.scale, found.image.height // upscaler.scale)
        yield EnlargedArtifact(path, str(file), str(compared_file), size, found.image.size, metrics)


def targets(paths: Sequence[str], out: Path, mark: str) -> list[Path]:
    """Where each image is written: under its own name with a mark behind it; of equal names, numbered."""
    taken: set[str] = set()
    files = []
    for path in paths:
        stem, number = f"{Path(path).stem}_{mark}", 2
        name = stem
        while name in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name)
        files.append(out / f"{name}.png")
    there = next((file for file in files if file.exists() or file.is_symlink()), None)
    if there is not None:
        raise UsageError(f"{there} is there already; name another folder with --out")
    return files


def references_of(paths: Sequence[str], place: Path) -> list[Path]:
    """The reference of each image: one file for all, or that of its name. UsageError where one has none."""
    if not place.is_dir():
        return [Path(found) for found in find_images(place)[:1]] * len(paths)
    found = beside(paths, place)
    alone = next((path for path in paths if path not in found), None)
    if alone is not None:
        raise UsageError(f"{place} has no image with the name of {alone}")
    return [found[path] for path in paths]


def beside(paths: Sequence[str], folder: Path | None) -> dict[str, Path]:
    """Of each image the file of the same name in a folder, whatever its ending."""
    if folder is None:
        return {}
    by_stem = {Path(found).stem: Path(found) for found in find_images(folder)}
    return {path: by_stem[Path(path).stem] for path in paths if Path(path).stem in by_stem}


def read_truth(path: Path | None, image: Image.Image, scale: int) -> Image.Image | str:
    """The truth at the size of the enlarged image, beyond which it may have a rest of the scale; or what is wrong."""
    from orchard.tasks.super_resolution.metrics import least_side
    from orchard.tasks.super_resolution.pipeline import read_image

    if path is None:
        return "there is no image of this name in the folder of --truth"
    truth = read_image(path)
    if isinstance(truth, str):
        return f"{path}: {truth}"
    if (truth.width - truth.width % scale, truth.height - truth.height % scale) != image.size:
        return f"{path} is {truth.width}x{truth.height}, expected {image.width}x{image.height} as the answer is"
    if min(image.size) < least_side(scale):
        return f"{path} is {truth.width}x{truth.height}; metrics need {least_side(scale)} pixels a side"
    return truth.crop((0, 0, *image.size)).convert(image.mode)


def compared(
    names: Sequence[str], image: Image.Image, bicubic: Image.Image, truth: Image.Image, scale: int
) -> tuple[tuple[str, float], ...]:
    from orchard.tasks.super_resolution.metrics import compare

    values = (*compare(image, truth, scale), *compare(bicubic, truth, scale))
    return tuple(zip(names, values, strict=True))


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Images of one size and mode in a row."""
    from PIL import Image

    width, height = images[0].size
    row = Image.new(images[0].mode, ((width + GAP) * len(images) - GAP, height), "white")
    for place, image in enumerate(images):
        row.paste(image, (place * (width + GAP), 0))
    return row
