"""Answers of a generative model: images as files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from orchard.errors import UsageError
from orchard.inference.artifacts import Artifact, ImageFiles
from orchard.tasks.unconditional_image_generation.settings import Options


def answer(folder: Path, items: Sequence[str], options: Options, say: Callable[[str], None]) -> Iterator[Artifact]:
    """Images in a folder, named by their numbers, and by their classes where they have such; with a sheet where there
    are several, of which each row is a class where some are asked for, and a film of a walk."""
    if items:
        raise UsageError(f"this model makes images out of noise and takes nothing, got '{items[0]}'; leave it out")
    from rich.progress import Progress

    from orchard.console import Console
    from orchard.inference.loading import load
    from orchard.inference.mp4 import require_av
    from orchard.inference.png_files import new_images, save_picture, write_bytes
    from orchard.tasks.unconditional_image_generation.pipeline import ImageGenerator
    from orchard.tasks.unconditional_image_generation.sheets import film, sheet_of

    if options.animation == "mp4":
        require_av()
    out = new_images(options.out or Path("generated"), named=options.out is not None)
    loaded = load(folder)
    generator = ImageGenerator(loaded)
    if options.project is not None:
        from orchard.tasks.unconditional_image_generation.projecting import projected

        generator.family.steps(generator.model, options)
        yield from projected(loaded, options, out)
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        each = " of each class" if options.classes else ""
        bar = progress.add_task(f"{options.count} image{'s' if options.count > 1 else ''}{each}", total=1.0)
        images = list(generator.generate(options, lambda share: progress.update(bar, completed=share)))
    files = [out / generator.file_name(image, options) for image in images]
    for file, image in zip(files, images, strict=True):
        save_picture(image, file)
    whole = out / "sheet.png"
    if len(images) > 1:
        save_picture(sheet_of(images, options), whole)
    walk = out / f"walk.{options.animation or 'gif'}"
    if options.walk is not None:
        write_bytes(walk, film(images, options))
    yield ImageFiles(
        "", options.seed, tuple(map(str, files)), str(whole) if len(images) > 1 else "",
        animation=str(walk) if options.walk is not None else "",
        classes=tuple(str(image.info["class"]) for image in images if "class" in image.info),
    )  # fmt: skip
