"""GeneratedImage pictures as files: PNGs that say where they came from, sheets, and tables that are gone on with."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from PIL import Image

from orchard.data.captions import write_row
from orchard.data.captions.fields import picture_bytes
from orchard.data.pictures import GREY_MODES, naming, open_picture, plain
from orchard.errors import OrchardError, UsageError
from orchard.files import locked, open_regular
from orchard.inference.png_files import png_bytes
from orchard.inference.sampling import Sampling
from orchard.tasks.text_to_image.pipeline import GeneratedImage, TextToImagePipeline
from orchard.tasks.text_to_image.preview import ProgressCallback


def read_picture(path: Path) -> Image.Image:
    """A picture in a file, decoded. Raises OrchardError that names it."""
    with naming(str(path)), open_regular(path) as file, open_picture(file) as picture:
        return plain(picture, 1 if picture.mode in GREY_MODES else 3).copy()  # the file is closed behind it


def generate_table(
    pipeline: TextToImagePipeline,
    prompts: Sequence[tuple[str, str]],
    out: Path,
    *,
    count: int = 1,
    seed: int = 0,
    sampling: Sampling | None = None,
    watch: ProgressCallback | None = None,
    done: Callable[[int], None] = lambda rows: None,
) -> int:
    """A line `idx<TAB>text<TAB>picture in base64` for each (idx, text), in order; returns how many are new.

    What `out` holds already is kept and gone on from; a line that was cut off is written again. `done` is told the
    number of lines that are there. With a CLIP the best of `count` candidates is taken. Raises UsageError where `out`
    is of other prompts, another model or seed, OrchardError where the disk is full: the lines before are whole.
    """
    if count > 1 and pipeline.matcher is None:
        raise UsageError(
            f"a table takes one picture for each prompt; to choose it out of {count}, name a CLIP with --clip"
        )
    wanted = {"seed": str(seed), "sampling": pipeline.words_of(sampling), "model_hash": pipeline.fingerprint}
    try:
        with locked(out, f"another process is writing {out}; wait for it, or name another file with --out") as file:
            known = _take_up(file, out, prompts, wanted)
            done(known)
            good = file.tell()
            painted = pipeline.generate([text for _, text in prompts[known:]], count=count, seed=seed,
                                     sampling=sampling, watch=watch)  # fmt: skip
            for number, (idx, text) in enumerate(prompts[known:], known + 1):
                best = pipeline.rank([next(painted) for _ in range(count)])[0]
                try:
                    write_whole(file, line(idx, text, best))
                except OSError:
                    file.truncate(good)
                    raise
                good = file.tell()
                done(number)
    except OSError as error:
        raise OrchardError(
            f"{out} cannot be written: {error.strerror or error}; its lines are whole, and the same command goes on"
        ) from None
    return len(prompts) - known


def write_whole(file: IO[bytes], data: bytes) -> None:
    """All of it, or an OSError; an unbuffered file may take a part."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def line(idx: str, text: str, painted: GeneratedImage) -> bytes:
    """One line of a table, with its end; the picture is a PNG with text chunks in URL-safe base64."""
    return _head(idx, text) + base64.urlsafe_b64encode(png_bytes(painted.picture)) + b"\n"


def _head(idx: str, text: str) -> bytes:
    """A line up to its picture."""
    whole = write_row(idx, text, Image.new("L", (1, 1)))
    return whole[: whole.rindex("\t") + 1].encode()


def _take_up(file: IO[bytes], out: Path, prompts: Sequence[tuple[str, str]], wanted: dict[str, str]) -> int:
    """How many lines of the table are there already; a last one that was cut off is removed, and `file` ends there.

    Raises UsageError for all that is not the beginning of the table that is asked for: it is left as it is.
    """
    known, good, first = 0, 0, b""
    advice = "name another file with --out"
    try:
        for whole in io.BufferedReader(io.FileIO(file.fileno(), closefd=False)):
            head = _head(*prompts[known]) if known < len(prompts) else None
            if head is None or not _is_of(whole, head):
                raise UsageError(f"{out}, line {known + 1} is not for prompt {known + 1} of these; {advice}")
            if not whole.endswith(b"\n"):
                break
            first = first or whole
            known, good = known + 1, good + len(whole)
        if first:
            with Image.open(io.BytesIO(picture_bytes(first.rstrip().rpartition(b"\t")[2]))) as picture:
                for key, value in wanted.items():
                    if picture.info.get(key) != value:
                        raise UsageError(f"{out} was begun with {key} {picture.info.get(key)}, not {value}; {advice}")
    except (OSError, ValueError) as error:
        raise OrchardError(f"{out} is no table that can be gone on with: {error}; {advice}") from None
    file.truncate(good)
    file.seek(good)
    return known


def _is_of(line: bytes, head: bytes) -> bool:
    """Is this a line that begins with `head` and goes on with base64, or the beginning of one?"""
    if not line.startswith(head):
        return not line.endswith(b"\n") and head.startswith(line)
    return re.fullmatch(rb"[A-Za-z0-9_=-]*\n?", line[len(head) :]) is not None
