"""Randomness of generated images: every image has its own, given by the seed and the image's number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from orchard.data.counter_rng import uniforms


def generators(seed: int, numbers: Sequence[int]) -> Iterator[torch.Generator]:
    """A random generator for each image. Torch looks at the lower 32 bits of a seed alone, so seeds are hashed."""
    for chance in uniforms(seed, 0, np.asarray(numbers, np.int64), 1)[:, 0]:
        yield torch.Generator().manual_seed(int(chance * 2**32))
