"""Masks of objects: encoded and back, moved with their images, read from COCO's files, refused where they are none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco

from orchard.data.annotated import resize, vary
from orchard.data.boxes.check import check_boxes
from orchard.data.boxes.contracts import Objects
from orchard.data.boxes.loader import BoxLoader, InstanceLoader
from orchard.data.boxes.named import SceneBoxes
from orchard.data.boxes.object_masks import Masks, read_mask
from orchard.data.boxes.settings import BoxAugmentSettings
from orchard.data.boxes.sources import open_boxes, open_instances
from orchard.data.contracts import Preprocess
from orchard.data.counter_rng import uniforms
from orchard.data.scenes import make_scene
from orchard.data.settings import CaptionSource, DataSettings
from orchard.data.sizing import Sizing
from orchard.errors import OrchardError

GREY = Preprocess((64, 80), 3, (0.5,) * 3, (0.25,) * 3)


# Encoded


def test_masks_are_encoded_and_come_back() -> None:
    """Also of no object; and COCO's two ways to write runs are read alike."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width = rng.integers(1, 60, 2).tolist()
        dense = torch.from_numpy(rng.random((int(rng.integers(0, 4)), height, width)) < rng.random() + 0.05)
        dense[:, 0, 0] = True
        masks = Masks.of(dense)
        assert torch.equal(masks.dense(), dense) and masks.areas().tolist() == dense.sum((1, 2)).tolist()
        for pixels, written in zip(dense, masks.to_json(), strict=True):
            flat = pixels.T.flatten().numpy()  # column by column; the first run is of zeros, here none
            ends = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1], True])
            listed = {"size": [height, width], "counts": np.diff(np.r_[0, ends]).tolist()}
            assert read_mask(written, height, width) == read_mask(listed, height, width) == written["counts"].encode()


def test_masks_are_mirrored_moved_and_resized() -> None:
    dense = torch.zeros(2, 40, 60, dtype=torch.bool)
    dense[0, 10:30, 4:24], dense[1, 0:20, 40:60] = True, True
    masks = Masks.of(dense)
    assert torch.equal(masks.mirrored().dense(), dense.flip(2))
    assert torch.equal(masks.moved(4, 8, 20, 30).dense(), dense[:, 8:28, 4:34])
    placed = masks.moved(-6, -3, 50, 80).dense()
    assert torch.equal(placed[:, 3:43, 6:66], dense) and placed.sum() == dense.sum()
    assert not masks.moved(100, 0, 5, 5).dense().any()
    small = masks.resized(20, 30).dense()
    assert small.shape == (2, 20, 30) and torch.equal(small, dense[:, ::2, ::2])
    assert torch.equal(masks.only(np.array([False, True])).dense(), dense[1:])


def test_overlaps_are_those_of_the_pixels() -> None:
    dense = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0)) > 0.4
    others = dense[:2].roll(1, 2)
    both = (dense[:, None] & others).sum((2, 3)) / (dense[:, None] | others).sum((2, 3))
    torch.testing.assert_close(Masks.of(dense).overlaps(Masks.of(others)), both)
    assert Masks.of(dense).overlaps(Masks.of(dense[:0])).shape == (3, 0)


# Scenes and batches


def test_scenes_have_the_masks_of_their_digits() -> None:
    """The rest of them is as without."""
    with_masks = open_instances("digit-scenes", DataSettings())
    split, bare = with_masks.splits["test"], open_boxes("digit-scenes", DataSettings())
    for index in range(4):
        scene, record = make_scene(0, "test", index), split.record(index)
        assert record.objects.masks is not None and torch.equal(record.objects.masks.dense(), scene.masks)
        other = bare.splits["test"].record(index)
        assert np.array_equal(other.objects.boxes, record.objects.boxes) and other.objects.masks is None
    assert with_masks.fingerprint == bare.fingerprint


@pytest.mark.parametrize(
    "settings",
    [
        BoxAugmentSettings(flip=True, sides=(50, 90)),
        BoxAugmentSettings(crop=1.0, crop_from=(110, 130), crop_sides=(60, 100)),
    ],
)
def test_masks_move_with_their_images(settings: BoxAugmentSettings) -> None:
    """A scene's masks painted into an image stay where that shows them."""
    split, kept = SceneBoxes("train", 0, masks=True), 0
    for index, row in enumerate(uniforms(0, 0, np.arange(8))):
        objects = split.objects(index)
        assert objects.masks is not None
        painted = objects.masks.dense().any(0).expand(3, -1, -1).to(torch.uint8) * 255
        image, moved = vary(painted, objects, settings, row, Sizing(60, None))
        assert moved.masks is not None and len(moved.masks) == len(moved.labels)
        assert (moved.masks.height, moved.masks.width) == image.shape[1:]
        shown, there = image[0] > 127, moved.masks.dense().any(0)
        assert (shown != there).float().mean() < 0.02 and (shown & there).sum() > 0.85 * shown.sum()
        kept += len(moved.labels)
    assert kept > 10


def test_batches_have_masks_of_the_padded_size() -> None:
    split = SceneBoxes("train", 0, masks=True)
    sizing, augment = Sizing(48, 80), BoxAugmentSettings(flip=True, sides=(40, 48))
    batch = InstanceLoader(split, GREY, sizing, augment, batch_size=3, seed=1).batch(0, 2)
    bare = BoxLoader(SceneBoxes("train", 0), GREY, sizing, augment, batch_size=3, seed=1).batch(0, 2)
    assert torch.equal(batch.images.values, bare.images.values) and torch.equal(batch.boxes.values, bare.boxes.values)
    for n, (masks, labels) in enumerate(zip(batch.masks.rows(), batch.labels.rows(), strict=True)):
        assert masks.shape == (len(labels), *batch.images.values.shape[2:]) and masks.dtype == torch.bool
        assert not masks[:, ~batch.images.mask[n]].any() and masks.flatten(1).any(1).all()
    first, second = batch.parts(2)
    assert len(first.masks) == 2 and torch.equal(second.masks.values, batch.masks.rows()[2])


def test_ignored_objects_have_no_mask_in_a_batch() -> None:
    class WithCrowd(SceneBoxes):
        def record(self, index: int) -> Any:
            found = super().record(index)
            ignored = np.arange(len(found.objects.labels)) == 0
            return replace(found, objects=replace(found.objects, ignored=ignored))

    split = WithCrowd("test", 0, masks=True)
    batch = InstanceLoader(split, GREY, Sizing(None, None), None).batch(0, 1)
    expected = split.objects(1).masks
    assert expected is not None and torch.equal(batch.masks.values, expected.dense()[1:])


def test_objects_without_masks_stay_so() -> None:
    image = torch.zeros(3, 20, 30, dtype=torch.uint8)
    _, found = resize(
        image, Objects(np.ones((1, 4), np.float32), np.zeros(1, np.int64), np.zeros(1, bool)), Sizing(10, None)
    )
    assert found.masks is None


# Files

SQUARE = [10.0, 5.0, 30.0, 5.0, 30.0, 25.0, 10.0, 25.0]


@pytest.fixture
def table(tmp_path: Path) -> dict[str, Any]:
    """Three images, and a table with masks in all of COCO's forms."""
    for n in range(3):
        Image.new("RGB", (60, 40), (n, 9, 9)).save(tmp_path / f"{n}.png")
    square = torch.zeros(1, 40, 60, dtype=torch.bool)
    square[0, 5:25, 10:30] = True
    code = Masks.of(square).to_json()[0]
    runs = {"size": [40, 60], "counts": [10 * 40 + 5, *[20, 20] * 19, 20, 30 * 40 + 15]}
    rows = [(0, [SQUARE], 0), (0, code, 0), (1, runs, 1), (2, [SQUARE, [40, 30, 50, 30, 50, 39]], 0)]
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 60, "height": 40} for n in range(3)],
        "categories": [{"id": 1, "name": "bee"}],
        "annotations": [
            {"id": n, "image_id": at, "category_id": 1, "bbox": [10, 5, 20, 20], "segmentation": one, "iscrowd": crowd}
            for n, (at, one, crowd) in enumerate(rows)
        ],
    }  # fmt: skip


def opened(folder: Path, table: dict[str, Any], **settings: Any) -> Any:
    (folder / "instances_train.json").write_text(json.dumps(table))
    return open_instances(str(folder), DataSettings(**settings))


def test_polygons_and_runs_are_read(tmp_path: Path, table: dict[str, Any]) -> None:
    data = opened(tmp_path, table)
    found = {Path(r.key).name: r.objects for s in data.splits.values() for r in map(s.record, range(len(s)))}
    dense = {name: one.masks.dense() for name, one in found.items()}
    square = torch.zeros(40, 60, dtype=torch.bool)
    square[5:25, 10:30] = True
    assert torch.equal(dense["0.png"], square.expand(2, -1, -1)) and torch.equal(dense["1.png"][0], square)
    assert found["1.png"].ignored.tolist() == [True]
    assert torch.equal(dense["2.png"][0] & square, square) and 30 < (dense["2.png"][0] & ~square).sum() < 60
    assert data.fingerprint != open_boxes(str(tmp_path), DataSettings()).fingerprint


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([[1, 2, 3, 4]], "a polygon of 2 points, expected three or more"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon of 7 numbers, expected pairs"),
        ([["a", 2, 3, 4, 5, 6]], "a polygon that is no list of numbers"),
        ([[1e30, 2, 3, 4, 5, 6]], "a polygon with a point far outside"),
        ([[70, 50, 80, 50, 80, 60]], "a mask without a pixel inside the picture"),
        ([], "no mask; expected polygons or runs in 'segmentation'"),
        (None, "no mask; expected polygons"),
        ({"size": [60, 40], "counts": [2400]}, r"a mask of height and width \[60, 40\], the picture has \[40, 60\]"),
        ({"size": [40, 60], "counts": [1, 2, 3]}, "runs that do not decode: they are not of 2400 pixels"),
        ({"size": [40, 60], "counts": [-5, 2405]}, "they are not of 2400 pixels"),
        ({"size": [40, 60], "counts": "é~ no code"}, "they are not in COCO's code"),
        ({"size": [40, 60], "counts": "PPPPPPPPPPP0"}, "a number is too large"),
        ({"size": [40, 60], "counts": "05"}, "they are not of 2400 pixels"),
        ({"size": [40, 60]}, "runs without 'counts'"),
    ],
)
def test_masks_that_are_none_are_named_or_left_out(
    tmp_path: Path, table: dict[str, Any], wrong: Any, words: str
) -> None:  # fmt: skip
    table["annotations"][3]["segmentation"] = wrong
    with pytest.raises(OrchardError, match=rf"(?s)1 annotations are wrong: .*annotation 3: 'bee' has .*{words}"):
        opened(tmp_path, table)
    data = opened(tmp_path, table, bad_records="skip")
    assert sum(len(s.objects(n).labels) for s in data.splits.values() for n in range(len(s))) == 3
    assert len(data.problems) == 1 and "annotation 3" in data.problems[0].key
    boxes = open_boxes(str(tmp_path), DataSettings())  # which do not need the masks
    assert sum(len(s.objects(n).labels) for s in boxes.splits.values() for n in range(len(s))) == 4


def test_a_set_without_masks_is_refused(tmp_path: Path, table: dict[str, Any]) -> None:
    for row in table["annotations"]:
        del row["segmentation"]
    with pytest.raises(OrchardError, match="has boxes without masks; expected 'segmentation'"):
        opened(tmp_path, table)


def test_data_check_says_what_is_wrong_with_masks(tmp_path: Path, table: dict[str, Any]) -> None:
    table["annotations"][3]["segmentation"] = [[1, 2, 3, 4]]
    (tmp_path / "instances_train.json").write_text(json.dumps(table))
    report = check_boxes(str(tmp_path), CaptionSource(source=str(tmp_path)))
    assert len(report.problems) == 1 and "annotation 3: 'bee' has a polygon of 2 points" in report.problems[0]
    assert report.facts["masks"] == "objects have them"


def test_what_we_read_pycocotools_reads(tmp_path: Path, table: dict[str, Any]) -> None:
    """Our check of runs accepts what pycocotools writes, of many shapes."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        coarse = torch.rand(1, 1, 7, 9, generator=generator)
        dense = torch.nn.functional.interpolate(coarse, (300, 500), mode="bilinear")[0] > 0.5
        written = coco.encode(np.asfortranarray(dense[0].numpy().astype(np.uint8)))
        text = {"size": written["size"], "counts": written["counts"].decode()}
        assert torch.equal(Masks(300, 500, (read_mask(text, 300, 500),)).dense(), dense)
