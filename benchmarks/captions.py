"""Pictures in a TSV of any length: memory and time of indexing and of reading, beside a loader that holds all lines.

The other side is a stand-in for EasyNLP's way with such a file: every line is read into memory, and for each record its
line is cut at tabs, the picture decoded from URL-safe base64, opened and resized. The file is made here and removed
again; every measurement runs in a process of its own, so that its peak of memory is its own. Times are of the processor
(one thread, the file in the system's cache), so that what else the machine does changes them little.

    python benchmarks/captions.py [--rows 1000000] [--side 8] [--reads 20000]
    python benchmarks/captions.py --rows 10000000 --tiny
"""

from __future__ import annotations

import argparse
import base64
import io
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from torch.utils.data import Dataset

from orchard.data import AugmentSettings, Preprocess
from orchard.data.captions import CaptionSettings, PairLoader, open_captions, picture_to_base64
from orchard.inference.hardware import hardware

SIDE, BATCH = 32, 64  # what pictures are resized to; pictures in a batch
Figures = dict[str, float]


def make_file(path: Path, rows: int, side: int) -> None:
    """`rows` lines of idx, text and one of 64 pictures of `side` pixels."""
    chance = np.random.default_rng(0)
    pictures = [Image.fromarray(chance.integers(0, 256, (side, side, 3), np.uint8)) for _ in range(64)]
    fields = [picture_to_base64(picture) for picture in pictures]
    with path.open("w") as file:
        for begin in range(0, rows, 10_000):
            numbers = range(begin, min(begin + 10_000, rows))
            file.write("".join(f"{n}\ta picture with number {n}\t{fields[n % 64]}\n" for n in numbers))


class HeldLines(Dataset):
    """All lines in memory, cut and decoded when they are asked for."""

    def __init__(self, path: Path):
        with path.open(encoding="utf-8") as file:
            self.lines = file.readlines()

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, str]:
        _, text, field = self.lines[place].rstrip("\n").split("\t")
        picture = Image.open(io.BytesIO(base64.urlsafe_b64decode(field))).convert("RGB").resize((SIDE, SIDE))
        return torch.from_numpy(np.asarray(picture, np.float32) / 127.5 - 1).permute(2, 0, 1), text


def peak() -> float:
    """The most memory this process has held, in MB."""
    if Path("/proc/self/status").exists():  # getrusage would begin with what the parent held
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ours(path: Path, reads: int) -> Figures:
    base = psutil.Process().memory_info().rss / 2**20
    begun = time.process_time()
    data = open_captions(str(path), CaptionSettings(test_fraction=0, validation_fraction=0.001))
    opened = time.process_time() - begun
    figures = {"open_s": opened, "peak_open": peak() - base}
    preprocess = Preprocess((SIDE, SIDE), 3, (0.5,) * 3, (0.5,) * 3, resize="stretch")
    loader = PairLoader(data.splits["train"], preprocess, AugmentSettings(), batch_size=BATCH, seed=0, workers=0)
    batches = loader.batches(0)
    next(batches)  # the order of the epoch is made
    return figures | _read(len(next(batches)) for _ in range(reads // BATCH)) | {"peak": peak() - base}


def theirs(path: Path, reads: int) -> Figures:
    base = psutil.Process().memory_info().rss / 2**20
    begun = time.process_time()
    held = HeldLines(path)
    figures = {"open_s": time.process_time() - begun, "peak_open": peak() - base}
    batches = iter(torch.utils.data.DataLoader(held, BATCH, shuffle=True))
    next(batches)
    return figures | _read(len(next(batches)[1]) for _ in range(reads // BATCH)) | {"peak": peak() - base}


def _read(counts: Iterable[int]) -> Figures:
    begun = time.process_time()
    seen = sum(counts)
    return {"pairs_s": seen / (time.process_time() - begun)}


def apart(function: Callable[[Path, int], Figures], path: Path, reads: int) -> Figures:
    """Run in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (1,)) as pool:
        return pool.apply(function, (path, reads))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--side", type=int, default=8, help="pixels of a picture")
    parser.add_argument("--tiny", action="store_true", help="pictures of one pixel")
    parser.add_argument("--reads", type=int, default=20_000, help="pairs read in random order")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.tsv"
        os.environ["ORCHARD_CACHE"] = folder
        make_file(path, options.rows, 1 if options.tiny else options.side)
        size = path.stat().st_size / 1e6
        with path.open("rb") as file:  # it is in the system's cache for both sides
            while file.read(2**20):
                pass
        print(f"{options.rows:,} rows, {size:,.0f} MB")
        print(f"{'':28}{'open, s':>9}{'rows/s':>12}{'peak MB, open':>15}{'peak MB, read':>15}{'pairs/s':>9}")
        for name, function in (("ours, first time", ours), ("ours, index kept", ours), ("all lines in memory", theirs)):
            f = apart(function, path, options.reads)
            rate = options.rows / f["open_s"]
            print(
                f"{name:28}{f['open_s']:9.2f}{rate:12,.0f}{f['peak_open']:15,.0f}{f['peak']:15,.0f}{f['pairs_s']:9,.0f}"
            )
    print(hardware())


if __name__ == "__main__":
    main()
