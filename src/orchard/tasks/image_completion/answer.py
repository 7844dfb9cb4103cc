"""Answers of a model of pixels: images as files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from orchard.inference.artifacts import Artifact, ImageFiles
from orchard.inference.image_files import find_images
from orchard.tasks.image_completion.settings import Options


def answer(folder: Path, items: Sequence[str], options: Options, say: Callable[[str], None]) -> Iterator[Artifact]:
    """Images in a folder, named by their numbers: whole ones, or completions of the images in `items` one after the
    other. A sheet has all; of completions, each line has the given part, what was made of it, and the image itself."""
    paths = find_images(items) if items else []
    from rich.progress import Progress

    from orchard.console import Console
    from orchard.inference.loading import load
    from orchard.inference.png_files import new_images, save_picture, sheet
    from orchard.tasks.image_completion.pipeline import ImageCompleter

    out = new_images(options.out or Path("generated"), named=options.out is not None)
    completer = ImageCompleter(load(folder), say)
    given = completer.read(paths) if paths else None
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("pixels", total=1.0)
        colours = completer.generate(given, options, lambda share: progress.update(bar, completed=share))
    images = completer.images(colours, options.seed)
    files = [out / f"{number}.png" for number in range(len(images))]
    for file, image in zip(files, images, strict=True):
        save_picture(image, file)
    whole, count = str(out / "sheet.png") if len(images) > 1 or paths else "", options.count
    if given is not None:
        parts, truths = completer.given_part(given, options), completer.images(given, options.seed)
        rows = [
            [part, *images[n * count : (n + 1) * count], truth]
            for n, (part, truth) in enumerate(zip(parts, truths, strict=True))
        ]
        save_picture(sheet([image for row in rows for image in row], columns=count + 2), out / "sheet.png")
    elif whole:
        save_picture(sheet(images), out / "sheet.png")
    for number, item in enumerate(paths or [""]):
        mine = files[number * count : (number + 1) * count]
        yield ImageFiles(item, options.seed, tuple(map(str, mine)), whole)
