"""Decoding and augmenting JPEGs for training: our loader beside torchvision's reference pipeline, the same workers.

The reference is what torchvision's own training script does: ImageFolder with the PIL loader, RandomResizedCrop to 224,
a flip, to a tensor, normalised, through DataLoader. The pictures are made here, of photograph-like smoothness.

    python benchmarks/input.py [--size 500x375] [--count 1536] [--workers 2]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import v2

from orchard.data import AugmentSettings, DataSettings, Loader, default_preprocess, open_data
from orchard.inference.hardware import hardware

BATCH, ROUNDS = 64, 3


def make_pictures(folder: Path, count: int, width: int, height: int) -> None:
    """Two classes of JPEGs: coarse random colours enlarged smoothly, with grain."""
    chance = np.random.default_rng(0)
    for number in range(count):
        coarse = chance.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
        grain = chance.normal(0, 6, picture.shape).astype(np.int16)
        path = folder / "train" / str(number % 2) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(picture + grain, 0, 255).astype(np.uint8)).save(path, quality=88)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="500x375")
    parser.add_argument("--count", type=int, default=1536)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pictures(folder, options.count, width, height)
        data = open_data(str(folder), DataSettings(validation_fraction=0.01, workers=options.workers))
        augment = AugmentSettings(crop="resized", flip=True)
        preprocess, train = default_preprocess(data, 224, 3), data.splits["train"]
        steps = [
            v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]  # fmt: skip
        transform = v2.Compose([v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip(), *steps])
        pictures = datasets.ImageFolder(str(folder / "train"), transform)

        def ours() -> Iterator[int]:
            loader = Loader(train, preprocess, augment, batch_size=BATCH, seed=0, workers=options.workers)
            return (len(batch.images) for batch in loader.batches(0))

        def theirs() -> Iterator[int]:
            loader = DataLoader(pictures, BATCH, shuffle=True, drop_last=True, num_workers=options.workers)
            return (len(images) for images, _ in loader)

        times: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(ROUNDS):
            for name, side in (("ours", ours), ("theirs", theirs)):
                counts = side()
                next(counts)  # the workers have started, for both sides with as many batches under way
                began = time.perf_counter()
                seen = sum(counts)
                times[name].append((time.perf_counter() - began) / seen)
                del counts
    rates = {side: 1 / statistics.median(values) for side, values in times.items()}
    ratio = statistics.median(b / a for a, b in zip(times["ours"], times["theirs"], strict=True))
    print(
        f"{options.size}, {options.workers} workers: ours {rates['ours']:.0f}, torchvision's {rates['theirs']:.0f} "
        f"pictures/s, ratio {ratio:.2f}"
    )
    print(hardware())


if __name__ == "__main__":
    main()
