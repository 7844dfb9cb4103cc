"""Pictures with captions written down: every picture as codes, once, and kept from one run to the next.

What is kept is small (512 bytes for a picture of 256 codes, and its captions), and training needs nothing else: no
picture is read twice. It lies on disk and is read where it is asked, so that memory does not grow with the pictures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from orchard.cache import cache_folder
from orchard.console import Console
from orchard.data.batches import ImageBatch
from orchard.data.captions import CaptionData, CaptionSplit, cache
from orchard.data.loader import Loader
from orchard.errors import OrchardError
from orchard.tasks.base import is_first_process, say
from orchard.tasks.image_tokenization.image_tokenizer import ImageTokenizer

BATCH = 64


@dataclass(frozen=True, eq=False)
class EncodedSplit:
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


def encode_split(data: CaptionData, name: str, tokenizer: ImageTokenizer, workers: int | None) -> EncodedSplit:
    """One split in the tokenizer's codes: from the cache, or encoded now. Raises OrchardError for a bad picture."""
    about = (tokenizer.fingerprint, json.dumps(tokenizer.preprocess.to_json()), data.fingerprint, name)
    folder = cache_folder("codes") / hashlib.sha256(repr(about).encode()).hexdigest()[:32]
    index = cache.load(folder) or _encode(data.splits[name], name, tokenizer, workers, folder)
    codes = index.arrays["codes"].reshape(-1, tokenizer.grid[0] * tokenizer.grid[1])
    count = len(data.splits[name])
    if not len(codes) == len(index.arrays["firsts"]) - 1 == count:
        raise OrchardError(f"{folder} holds {len(codes):,} of {count:,} pictures as codes; remove it")
    return EncodedSplit(codes, **{name: index.arrays[name] for name in ("firsts", "ends", "text")})


def _encode(
    split: CaptionSplit, name: str, tokenizer: ImageTokenizer, workers: int | None, folder: Path
) -> cache.Index:
    kind = "H" if tokenizer.codes <= 2**16 else "i"
    loader = Loader(split, tokenizer.preprocess, None, batch_size=BATCH, seed=0, workers=workers)
    watched = _watched(loader.batches(0), len(loader), f"{len(split):,} pictures of {name} as codes")
    with cache.Making(folder, codes=kind, firsts="q", ends="q", text="B") as making:
        codes, firsts, ends, text = making.arrays.values()
        captions, end = 0, 0
        firsts.append(0)
        for batch in watched:  # in the order of the split
            codes.frombytes(tokenizer.encode(batch.images).numpy().astype(codes.typecode).tobytes())
            for index in batch.indices.tolist():
                for caption in split.texts(index):
                    text.frombytes(written := caption.encode())
                    ends.append(end := end + len(written))
                    captions += 1
                firsts.append(captions)
            making.spill()
        return making.done({})


def _watched(batches: Iterator[ImageBatch], total: int, words: str) -> Iterator[ImageBatch]:
    """A bar on a terminal, a line elsewhere, on stderr; the first process speaks."""
    quiet = not is_first_process()
    console = Console(stderr=True, quiet=quiet)
    if not console.is_terminal:
        say(f"writing down {words}")
    yield from track(batches, words, total, console=console, disable=quiet or not console.is_terminal, transient=True)
