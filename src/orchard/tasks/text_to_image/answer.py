"""Answers of a text-to-image model: images for prompts, as files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.errors import UsageError
from orchard.inference.artifacts import Artifact, ImageFiles, Summary
from orchard.tasks.text_to_image.settings import Options

if TYPE_CHECKING:
    from orchard.inference.sampling import Sampling
    from orchard.tasks.text_to_image.pipeline import GeneratedImage, TextToImagePipeline


def answer(folder: Path, items: Sequence[str], options: Options, say: Callable[[str], None]) -> Iterator[Artifact]:
    """Images for prompts in a folder each, with a sheet where there are several; or a table for a table of prompts."""
    prompts = [*items, *([options.text] if options.text is not None else [])]
    if options.data is not None and (prompts or options.complete):
        raise UsageError("--data brings its own prompts; leave out the others, and --complete")
    if options.data is None and options.set:
        raise UsageError("--set is for the table of --data")
    if options.data is None and not prompts:
        raise UsageError('nothing is asked for; give a prompt, such as orchard generate RUN "a red apple"')
    if options.complete and len(prompts) != 1:
        raise UsageError(f"--complete takes one prompt, got {len(prompts)}")
    from orchard.inference.loading import load
    from orchard.inference.sampling import sampling_from
    from orchard.tasks.text_to_image.pipeline import TextToImagePipeline

    def warn(line: str) -> None:
        say(f"warning: {line}")

    pipeline = TextToImagePipeline(load(folder), precision=options.precision, clip=options.clip, say=warn)
    sampling = sampling_from(pipeline.sampling, options)
    if options.data is not None:
        yield _table(pipeline, options.data, options, sampling, warn)
    else:
        yield from _images(pipeline, prompts, options, sampling)


def _table(
    pipeline: TextToImagePipeline, data: Path, options: Options, sampling: Sampling, warn: Callable[[str], None]
) -> Summary:
    """A line for every prompt of a table."""
    from orchard.data.captions import read_prompts
    from orchard.data.settings import CaptionSettings
    from orchard.tasks.text_to_image.canvas import Canvas
    from orchard.tasks.text_to_image.files import generate_table
    from orchard.training.settings import nest

    table = nest({key.removeprefix("data."): value for key, value in options.set.items()})
    prompts, problems = read_prompts(data, CaptionSettings.model_validate(table))
    for problem in problems:
        warn(f"{problem.key}: {problem.what}")
    out, count = options.out or data.with_name(f"{data.name.partition('.')[0]}-painted.tsv"), options.count
    with Canvas([text for _, text in prompts for _ in range(count)]) as canvas:
        new = generate_table(pipeline, prompts, out, count=count, seed=options.seed, sampling=sampling,
                             watch=canvas.watch, done=lambda rows: canvas.rows(rows, count))  # fmt: skip
    sentence = f"{len(prompts)} pictures in {out}, {new} of them new"
    return Summary(sentence, {"table": str(out), "rows": len(prompts), "new": new})


def _images(
    pipeline: TextToImagePipeline, prompts: list[str], options: Options, sampling: Sampling
) -> Iterator[ImageFiles]:
    """A folder for each prompt: single images, and a sheet where there are several."""
    from orchard.inference.png_files import new_images, save_picture, sheet
    from orchard.tasks.text_to_image.canvas import Canvas
    from orchard.tasks.text_to_image.files import read_picture

    count, seed, out = options.count, options.seed, options.out
    base = out or Path("painted")
    places = [base / _slug(prompt, seed) if len(prompts) > 1 or not out else base for prompt in prompts]
    folders = [new_images(place, named=out is not None) for place in places]
    with Canvas([prompt for prompt in prompts for _ in range(count)]) as canvas:
        how: dict[str, Any] = {"count": count, "seed": seed, "sampling": sampling, "watch": canvas.watch}
        if options.complete:
            made = pipeline.complete(read_picture(options.complete), prompts[0], **how)
        else:
            made = pipeline.generate(prompts, **how)
        found = []
        for prompt, folder in zip(prompts, folders, strict=True):
            best = pipeline.rank([next(made) for _ in range(count)])
            files = [folder / _name(one, rank, pipeline) for rank, one in enumerate(best, 1)]
            for file, one in zip(files, best, strict=True):
                save_picture(one.picture, file)
            if count > 1:
                save_picture(sheet([one.picture for one in best]), folder / "sheet.png")
            scores = tuple(one.score for one in best if one.score is not None)
            whole = str(folder / "sheet.png") if count > 1 else ""
            found.append(ImageFiles(prompt, seed, tuple(map(str, files)), whole, scores))
    yield from found


def _name(one: GeneratedImage, rank: int, pipeline: TextToImagePipeline) -> str:
    """By the candidate's number; where they are ranked, by rank first."""
    return f"{one.candidate}.png" if pipeline.matcher is None else f"rank{rank}-{one.candidate}.png"


def _slug(prompt: str, seed: int) -> str:
    """A prompt as the name of a folder, in any script; different prompts have different ones."""
    words = re.sub(r"[^\w]+", "-", prompt).strip("-")[:40]
    return f"{words}-{hashlib.sha256(prompt.encode()).hexdigest()[:6]}-seed{seed}"
