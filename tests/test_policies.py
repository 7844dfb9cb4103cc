"""Augmentation policies of torchvision, by our own random numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from orchard.data.loader import Loader
from orchard.data.policies import by_policy
from orchard.data.preprocess import default_preprocess
from orchard.data.settings import AugmentSettings, ImageSource
from orchard.data.sources import open_data

POLICIES = {
    "randaugment": v2.RandAugment(2, 9),
    "autoaugment": v2.AutoAugment(),
    "trivialaugment": v2.TrivialAugmentWide(),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_is_changed_by_its_own_number_whatever_is_beside_it(policy: str, channels: int) -> None:
    settings = AugmentSettings.model_validate({"policy": policy})
    pixels = torch.randint(0, 256, (6, channels, 16, 16), dtype=torch.uint8)
    numbers = np.linspace(0.05, 0.95, 6)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    found = by_policy(pixels, settings, numbers)
    assert torch.equal(torch.get_rng_state(), before), "the training's own random numbers were touched"
    assert torch.equal(by_policy(pixels[2:4], settings, numbers[2:4]), found[2:4])
    assert not torch.equal(found, pixels)
    torch.manual_seed(int(numbers[0] * 2**53))
    assert torch.equal(POLICIES[policy](pixels[0]), found[0])


def test_a_training_loader_has_the_policy_and_an_evaluation_has_not() -> None:
    data = open_data("digits", ImageSource(source="digits"))
    preprocess = default_preprocess(data, (8, 8), 1)

    def batch(augment: AugmentSettings | None) -> torch.Tensor:
        loader = Loader(data.splits["train"], preprocess, augment, batch_size=8, seed=0, workers=0)
        return next(iter(loader.batches(0))).images

    plain, changed = batch(AugmentSettings()), batch(AugmentSettings(policy="trivialaugment"))
    assert not torch.equal(plain, changed)
    assert torch.equal(changed, batch(AugmentSettings(policy="trivialaugment")))
