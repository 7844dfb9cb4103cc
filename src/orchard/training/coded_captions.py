"""Pictures with captions written down: every picture as codes, once, and kept from one run to the next.

What is kept is small (512 bytes for a picture of 256 codes, and its captions), and training needs nothing else: no
picture is read twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning_fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from orchard.data.captions import CaptionData, CaptionSplit
from orchard.data.loader import Loader
from orchard.inference.picture_codes import PictureTokenizer
from orchard.tasks.image_classification import ImageBatch

BATCH = 64
KEPT = 24  # splits in the cache; the oldest go


@dataclass(frozen=True, eq=False)
class CodedSplit:
    """N records of one split, in its order.

    codes: (N, n) uint16 or int32, row by row;
    firsts: (N + 1,) int64, the captions of record i are numbers firsts[i] to firsts[i + 1] - 1;
    ends: (M,) int64, where each caption ends in `text`, the UTF-8 of all of them, (bytes,) uint8.
    """

    codes: np.ndarray
    firsts: np.ndarray
    ends: np.ndarray
    text: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    def caption(self, number: int) -> str:
        begin = int(self.ends[number - 1]) if number else 0
        return self.text[begin : int(self.ends[number])].tobytes().decode()

    def captions(self) -> Iterator[str]:
        return (self.caption(number) for number in range(len(self.ends)))


def write_down(data: CaptionData, name: str, tokenizer: PictureTokenizer, workers: int | None) -> CodedSplit:
    """One split in the tokenizer's codes: from the cache, or encoded now. Raises OrchardError for a bad picture."""
    about = (tokenizer.fingerprint, json.dumps(tokenizer.preprocess.to_json()), data.fingerprint, name)
    file = _folder() / f"{hashlib.sha256(repr(about).encode()).hexdigest()[:32]}.safetensors"
    with contextlib.suppress(OSError, SafetensorError, TypeError):
        return CodedSplit(**load_file(file))
    coded = _encode(data.splits[name], name, tokenizer, workers)
    _store(file, coded)
    return coded


def _encode(split: CaptionSplit, name: str, tokenizer: PictureTokenizer, workers: int | None) -> CodedSplit:
    kind = np.uint16 if tokenizer.codes <= 2**16 else np.int32
    codes = np.empty((len(split), tokenizer.grid[0] * tokenizer.grid[1]), kind)
    counts, lengths, text = np.zeros(len(split) + 1, np.int64), array("q"), bytearray()
    loader = Loader(split, tokenizer.preprocess, None, batch_size=BATCH, seed=0, workers=workers)
    for batch in _watched(loader.batches(0), len(loader), f"{len(split):,} pictures of {name} as codes"):
        places = batch.indices.numpy()
        codes[places] = tokenizer.encode(batch.images).numpy()
        for index in places:
            captions = [caption.encode() for caption in split.texts(int(index))]
            counts[index + 1] = len(captions)
            lengths.extend(len(caption) for caption in captions)
            text += b"".join(captions)
    ends = np.cumsum(np.frombuffer(lengths, np.int64))
    return CodedSplit(codes, np.cumsum(counts), ends, np.frombuffer(text, np.uint8))


def _watched(batches: Iterator[ImageBatch], total: int, words: str) -> Iterator[ImageBatch]:
    """A bar on a terminal, a line elsewhere, on stderr; the first process speaks."""
    quiet = getattr(rank_zero_only, "rank", 0) != 0
    console = Console(stderr=True, quiet=quiet)
    if not console.is_terminal:
        say(f"writing down {words}")
    yield from track(batches, words, total, console=console, disable=quiet or not console.is_terminal, transient=True)


def say(line: str) -> None:
    """A line for the person who waits, on stderr, from the first process."""
    if getattr(rank_zero_only, "rank", 0) == 0:
        sys.stderr.write(line + "\n")


def _folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ORCHARD_CACHE") or Path(home) / "orchard") / "codes"


def _store(file: Path, coded: CodedSplit) -> None:
    """A cache that cannot be written is done without."""
    with contextlib.suppress(OSError, SafetensorError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
            save_file(dict(vars(coded)), Path(scratch) / "part")
            (Path(scratch) / "part").replace(file)
        for old in sorted(file.parent.glob("*.safetensors"), key=lambda f: f.stat().st_mtime)[:-KEPT]:
            old.unlink()
