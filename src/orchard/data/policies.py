"""Augmentation policies that were found by search or by trying, as torchvision has them, each image by its own number.

AutoAugment (arXiv:1805.09501), RandAugment (arXiv:1909.13719) and TrivialAugment (arXiv:2103.10158).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orchard.data.settings import AugmentSettings


def by_policy(pixels: Tensor, settings: AugmentSettings, numbers: np.ndarray) -> Tensor:
    """Images (B, C, H, W) uint8, each changed as its number (B,) in [0, 1) says.

    Every image has a seed of its own, so that it is changed alike whatever is beside it, and torch's own generator is
    left alone.
    """
    policy = _policy(settings.policy, settings.operations, settings.magnitude)
    changed = torch.empty_like(pixels)
    with torch.random.fork_rng(devices=[]):
        for place, number in enumerate(numbers.tolist()):
            torch.default_generator.manual_seed(int(number * 2**53))
            changed[place] = policy(pixels[place])
    return changed


@functools.cache
def _policy(name: str, operations: int, magnitude: int) -> Any:
    from torchvision.transforms import v2  # here, as it takes seconds, and few trainings ask for a policy

    if name == "randaugment":
        return v2.RandAugment(operations, magnitude)
    return {"autoaugment": v2.AutoAugment, "trivialaugment": v2.TrivialAugmentWide}[name]()
