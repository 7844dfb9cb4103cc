"""Batches: functions of seed, epoch and number, varied exactly as asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from orchard.data import AugmentSettings, DataSettings, Loader, default_preprocess, mix, open_data
from orchard.data.augment import CROP, plan, resized_crops, vary
from orchard.data.batches import ImageBatch
from orchard.data.counter_rng import COLUMNS, Order, permuted, uniforms
from orchard.data.settings import MixSettings

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
EVERYTHING = AugmentSettings(
    crop="resized", flip=True, rotate=20, scale=0.2, shift=0.1, color=0.4, erase=0.5
)  # fmt: skip


def same(a: ImageBatch, b: ImageBatch) -> bool:
    return torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and torch.equal(a.indices, b.indices)


# Batches


def test_numbers_are_uniform_and_belong_to_their_record():
    numbers = uniforms(0, 0, np.arange(4000))
    assert numbers.shape == (4000, COLUMNS) and numbers.min() >= 0 and numbers.max() < 1
    assert np.abs(numbers.mean(0) - 0.5).max() < 0.03 and np.abs(numbers.var(0) - 1 / 12).max() < 0.01
    assert np.abs(np.corrcoef(numbers[:, :16].T) - np.eye(16)).max() < 0.08
    assert np.array_equal(uniforms(0, 0, np.array([17, 3])), numbers[[17, 3]])
    for seed, epoch in ((1, 0), (0, 1), (2**63, 0)):
        assert not np.isclose(uniforms(seed, epoch, np.arange(4)), numbers[:4]).any()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 65, 1000])
def test_an_order_has_every_record_once(count):
    order = permuted(3, 2, np.arange(count), count)
    assert sorted(order) == list(range(count))
    assert np.array_equal(permuted(3, 2, np.arange(count)[::-1], count), order[::-1])


def test_every_record_comes_to_every_place_as_often():
    landed = np.stack([permuted(seed, 1, np.arange(7), 7) for seed in range(3500)])
    counts = np.stack([np.bincount(landed[:, place], minlength=7) for place in range(7)])
    assert np.abs(counts - 500).max() < 5 * 500**0.5
    pairs = np.bincount(landed[:, 0] * 7 + landed[:, 1], minlength=49).reshape(7, 7)
    assert np.abs(pairs[~np.eye(7, dtype=bool)] - 3500 / 42).max() < 5 * (3500 / 42) ** 0.5


def test_an_order_is_the_same_in_stretches():
    order, whole = Order(5, 40_000), permuted(5, 1, np.arange(40_000), 40_000)
    for first in (0, 16_000, 32_768, 39_000, 100):
        assert np.array_equal(order(1, first, first + 1000), whole[first : first + 1000])
    assert not np.array_equal(order(2, 0, 1000), whole[:1000])


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_batches_do_not_depend_on_workers_start_or_world(kind, digits, photos):
    data = digits if kind == "memory" else open_data(str(photos), DataSettings())
    split, size = data.splits["train"], 102 if kind == "memory" else 6
    preprocess = default_preprocess(data, (28, 20), 3)

    def loader(workers: int, rank: int = 0, world: int = 1) -> Loader:
        return Loader(split, preprocess, EVERYTHING, batch_size=size, seed=7, workers=workers, rank=rank, world=world)

    plain_loader = loader(0)
    expected = [list(plain_loader.batches(epoch)) for epoch in (0, 1)]
    assert len(expected[0]) == len(plain_loader) == len(split) // size
    assert not torch.equal(expected[0][0].indices, expected[1][0].indices)
    working = loader(2)
    assert all(same(a, b) for epoch in (0, 1) for a, b in zip(expected[epoch], working.batches(epoch), strict=True))
    assert all(same(a, b) for a, b in zip(expected[1][1:], working.batches(1, 1), strict=True))
    parts = [list(loader(0, rank, 3).batches(0, 1)) for rank in range(3)]
    for number, whole in enumerate(expected[0][1:]):
        together = [part[number] for part in parts]
        joined = ImageBatch(
            *(torch.cat([getattr(b, name) for b in together]) for name in ("images", "labels", "indices"))
        )
        assert same(joined, whole)


def test_an_epoch_shows_each_picture_at_most_once(digits):
    loader = Loader(
        digits.splits["train"], default_preprocess(digits, 8, 1), AugmentSettings(), batch_size=100, seed=0, workers=0
    )  # fmt: skip
    indices = torch.cat([batch.indices for batch in loader.batches(0)])
    assert len(indices) == len(indices.unique()) == 1200
    assert torch.equal(next(loader.batches(0)).labels, torch.from_numpy(digits.splits["train"].labels)[indices[:100]])


def test_a_set_smaller_than_a_batch_is_one_batch(digits):
    preprocess = default_preprocess(digits, 8, 1)
    loader = Loader(digits.splits["validation"], preprocess, AugmentSettings(), batch_size=512, seed=0, workers=0)
    assert len(loader) == 1 and len(next(loader.batches(0))) == 180


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_shows_every_picture_once_in_order(digits, workers):
    split, preprocess = digits.splits["test"], default_preprocess(digits, 8, 1)

    def indices(rank: int, world: int) -> list[int]:
        loader = Loader(split, preprocess, None, batch_size=64, seed=0, workers=workers, rank=rank, world=world)
        batches = list(loader.batches(0))
        assert len(batches) == len(loader)
        return torch.cat([batch.indices for batch in batches]).tolist()

    assert indices(0, 1) == list(range(360))
    assert [i for rank in range(7) for i in indices(rank, 7)] == list(range(360))


def test_without_variation_training_sees_what_evaluation_sees(digits):
    split, preprocess = digits.splits["train"], default_preprocess(digits, 16, 1)
    trained = next(Loader(split, preprocess, AugmentSettings(), batch_size=32, seed=0, workers=0).batches(0))
    shown = next(Loader(split, preprocess, None, batch_size=2000, seed=0, workers=0).batches(0))
    assert torch.equal(trained.images, shown.images[trained.indices])


def varied(settings: AugmentSettings, pictures: torch.Tensor, numbers: np.ndarray | None = None) -> torch.Tensor:
    table = uniforms(0, 0, np.arange(len(pictures))) if numbers is None else numbers
    return vary(pictures, plan(settings, table, tuple(pictures.shape[2:])))


def test_shifted_crops_and_mirrors_move_whole_pixels():
    pictures = torch.randint(0, 256, (200, 3, 12, 10), dtype=torch.uint8)
    moved = varied(AugmentSettings(crop="pad", pad=2, flip=True), pictures)
    padded = torch.nn.functional.pad(pictures, (2, 2, 2, 2)).float()
    seen = set()
    for picture, result in zip(padded, moved, strict=True):
        candidates = {
            (mirror, y, x): (picture.flip(2) if mirror else picture)[:, y : y + 12, x : x + 10]
            for mirror in (False, True) for y in range(5) for x in range(5)
        }  # fmt: skip
        found = [key for key, candidate in candidates.items() if torch.equal(candidate, result)]
        assert found
        seen.add(found[0])
    assert len(seen) > 40  # of 50 ways


def test_turning_by_a_right_angle_is_exact():
    picture = torch.randint(0, 256, (1, 1, 9, 9), dtype=torch.uint8)
    numbers = np.full((1, COLUMNS), 0.5)
    numbers[:, 2] = 1.0  # the largest turn
    turned = varied(AugmentSettings(rotate=90), picture, numbers)
    assert torch.allclose(turned, torch.rot90(picture.float(), 1, (2, 3)), atol=0.01)


def test_a_shift_and_a_zoom_do_what_they_say():
    picture = torch.zeros(1, 1, 20, 20, dtype=torch.uint8)
    picture[:, :, 8:12, 8:12] = 255
    numbers = np.full((1, COLUMNS), 0.5)
    numbers[:, 4] = 1.0
    moved = varied(AugmentSettings(shift=0.25), picture, numbers)
    assert torch.allclose(moved, picture.float().roll(-5, 3), atol=0.1)
    numbers[:, [3, 4]] = 1.0, 0.5
    larger = varied(AugmentSettings(scale=0.5), picture, numbers)
    assert float(larger.sum() / picture.sum()) == pytest.approx(1.5**2, rel=0.05)


def test_colours_vary_about_the_picture_itself():
    pictures = torch.randint(60, 190, (64, 3, 8, 8), dtype=torch.uint8)
    changed = varied(AugmentSettings(color=0.3), pictures)
    assert changed.min() >= 0 and changed.max() <= 255
    ratio = changed.mean((1, 2, 3)) / pictures.float().mean((1, 2, 3))
    assert 0.6 < ratio.min() < 0.85 and 1.15 < ratio.max() < 1.35
    assert torch.equal(varied(AugmentSettings(), pictures), pictures.float())


def test_erasing_blanks_with_the_mean(digits):
    split, preprocess = digits.splits["train"], default_preprocess(digits, 16, 1)

    def images(erase: float) -> torch.Tensor:
        settings = AugmentSettings(erase=erase)
        return next(Loader(split, preprocess, settings, batch_size=500, seed=0, workers=0).batches(0)).images

    changed = images(0.4) != images(0.0)
    assert 0.3 < changed.flatten(1).any(1).float().mean() < 0.5
    assert (images(0.4)[changed] == 0).all()


def test_resized_crops_have_the_areas_and_aspects_asked_for():
    boxes = resized_crops(uniforms(0, 0, np.arange(2000))[:, CROP], 200, 150, (0.2, 0.6))
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0 and boxes[:, 2].max() <= 200 and boxes[:, 3].max() <= 150
    areas, aspects = width * height / 30000, width / height
    assert 0.19 < areas.min() < 0.22 and 0.57 < areas.max() < 0.61
    assert 0.73 < aspects.min() < 0.78 and 1.28 < aspects.max() < 1.36


def test_mixing_gives_soft_labels_that_say_what_was_mixed():
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 16, 16).contiguous()
    batch = ImageBatch(images, torch.arange(8) % 4, torch.arange(8))
    kinds = set()
    for step in range(20):
        mixed = mix(batch, MixSettings(mixup=0.8, cutmix=1.0), 4, 0, step)
        assert torch.allclose(mixed.labels.sum(1), torch.ones(8), atol=1e-6)
        share = mixed.labels[0, 0]  # of picture 0; its neighbour is 1
        assert torch.allclose(mixed.images[0].mean(), 1 - share, atol=1e-5)
        assert torch.allclose(mixed.images[3].mean(), 3 * share + 2 * (1 - share), atol=1e-4)
        kinds.add("cutmix" if set(mixed.images[0].unique().tolist()) <= {0.0, 1.0} else "mixup")
        half = ImageBatch(images[4:], batch.labels[4:], batch.indices[4:])
        assert torch.equal(mix(half, MixSettings(mixup=0.8, cutmix=1.0), 4, 0, step).images, mixed.images[4:])
    assert kinds == {"mixup", "cutmix"}
    assert mix(batch, MixSettings(), 4, 0, 0) is batch
    odd = ImageBatch(images[:3], batch.labels[:3], batch.indices[:3])
    assert torch.allclose(mix(odd, MixSettings(mixup=1.0), 4, 0, 0).images[2], images[2])
