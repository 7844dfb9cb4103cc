"""The images that are compared: real ones of a split at even distances, and generated ones of one noise for all."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.data.contracts import ImageData, ImageSplit, Preprocess
from orchard.data.loader import Loader
from orchard.errors import OrchardError
from orchard.tasks.unconditional_image_generation.judge import BATCH, Judge
from orchard.tasks.unconditional_image_generation.objective import family_of, make_images
from orchard.tasks.unconditional_image_generation.sample import Sample, remembered
from orchard.tasks.unconditional_image_generation.settings import Options

SEED = 0  # of the noise that is judged: the same in every evaluation of every run


def need_two(split: str, count: int, of: str = "") -> None:
    """OrchardError for a split with fewer pictures (`of` something) than a distance can be computed from."""
    if count < 2:
        raise OrchardError(
            f"the {split} split has {'one' if count else 'no'} picture{of}, and a distance needs 2: add some, or set a "
            f"larger data.{split}_fraction"
        )


def chosen(split: ImageSplit, count: int) -> np.ndarray:
    """The numbers of up to `count` images of a split, at even distances."""
    return np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(np.int64))


def chosen_batches(split: ImageSplit, preprocess: Preprocess, numbers: np.ndarray) -> Iterator[ImageBatch]:
    """Images of a split by their numbers, as the model sees them."""
    loader = Loader(split, preprocess, None, batch_size=BATCH, seed=0, workers=0)
    return (loader.make(0, part, slice(None)) for part in np.array_split(numbers, -(-len(numbers) // BATCH)))


def real_batches(split: ImageSplit, preprocess: Preprocess, numbers: np.ndarray) -> Iterator[Tensor]:
    """The same images as pixels, in batches (N, C, H, W) uint8."""
    return (to_pixels(batch.images, preprocess) for batch in chosen_batches(split, preprocess, numbers))


def real_images(split: ImageSplit, preprocess: Preprocess, count: int) -> Tensor:
    """Up to `count` images of a split at even distances, (N, C, H, W) uint8."""
    return torch.cat(list(real_batches(split, preprocess, chosen(split, count))))


def real_sample(
    judge: Judge, data: ImageData, split: ImageSplit, name: str, preprocess: Preprocess, count: int
) -> Sample:
    """Up to `count` images of the split `name` of `data`, at even distances, in the eyes of a judge; judged once on a
    machine, as the user's cache keeps it."""
    numbers = chosen(split, count)
    about = (data.fingerprint, name, json.dumps(preprocess.to_json()), *judge.about)
    return remembered(
        len(numbers), about, lambda: judge.sample(real_batches(split, preprocess, numbers), len(numbers))
    )  # fmt: skip


def measure(model: nn.Module, split: ImageSplit, preprocess: Preprocess, count: int) -> dict[str, float]:
    """The metrics of the model's family, of the same images."""
    device = next(model.parameters()).device
    batches = chosen_batches(split, preprocess, chosen(split, count))
    return family_of(model).measure(model, (batch.to(device) for batch in batches))


def parts_of(count: int) -> list[range]:
    """The numbers of the first `count` images, as many as are made at a time."""
    return [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]


def generated_images(model: nn.Module, preprocess: Preprocess, numbers: range) -> Tensor:
    """Images of the noise that all evaluations share, by their numbers, (N, C, H, W) uint8."""
    return to_pixels(make_images(model, SEED, numbers, Options()), preprocess)


def to_pixels(images: Tensor, preprocess: Preprocess) -> Tensor:
    """From the model's scale to uint8 on the CPU."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (preprocess.mean, preprocess.std))
    return (255 * (images.float().cpu() * std + mean)).round().clamp(0, 255).to(torch.uint8)
