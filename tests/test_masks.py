"""Images with masks: three ways of laying out files, named sets, and what is wrong with either."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import orchard
from PIL import Image

from orchard.data.boxes.named import SceneBoxes
from orchard.data.kinds import kind_by_look, kinds_by_name
from orchard.data.masks.collect import FileMasks
from orchard.data.masks.colours import overlay, palette_image, voc_colour
from orchard.data.masks.contracts import IGNORED, Relabelled
from orchard.data.masks.named import SceneMasks
from orchard.data.masks.sources import open_masks
from orchard.data.settings import DataSettings, MaskSettings
from orchard.errors import OrchardError, UsageError

CAMVID = Path(__file__).parents[1].parent / "shared" / "data" / "camvid" / "camvid.zip"
SKIP = MaskSettings(bad_records="skip").for_evaluation(whole=True)


def numbers(seed: int, high: int = 3, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, size).astype(np.uint8)


def put(path: Path, pixels: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (palette_image(pixels, [(9, 9, 9)]) if palette else Image.fromarray(pixels)).save(path)


def put_pair(root: Path, image: str, mask: str, seed: int, palette: bool = False) -> None:
    put(root / image, np.random.default_rng(seed).integers(0, 256, (20, 30, 3)).astype(np.uint8))
    put(root / mask, numbers(seed), palette)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight images and masks of three classes, without splits."""
    for n in range(8):
        put_pair(tmp_path, f"images/{n}.jpg", f"masks/{n}.png", n)
    return tmp_path


def keys(split: object) -> list[str]:
    assert isinstance(split, FileMasks)
    return [Path(split.key(n)).stem for n in range(len(split))]


def test_masks_beside_images_without_splits(folder: Path) -> None:
    data = open_masks(str(folder), DataSettings(validation_fraction=0.25, test_fraction=0.25))
    assert data.format == "mask folders" and data.classes == ("0", "1", "2") and data.colours[1] == (128, 0, 0)
    assert sorted(key for split in data.splits.values() for key in keys(split)) == list("01234567")
    record = data.splits["train"].record(0)
    stem = Path(record.key).stem
    assert np.array_equal(record.mask.numpy(), numbers(int(stem)))
    expected = np.array(Image.open(folder / "images" / f"{stem}.jpg")).transpose(2, 0, 1)
    assert np.array_equal(record.image.numpy(), expected)
    counts = sum(split.pixels() for split in data.splits.values())
    assert counts.tolist() == np.bincount(np.concatenate([numbers(n).ravel() for n in range(8)])).tolist()


@pytest.mark.parametrize("order", ["images/{}", "{}/images"])
def test_masks_beside_images_with_splits_and_names(tmp_path: Path, order: str) -> None:
    for n, split in enumerate(("train", "train", "val", "test")):
        below = order.format(split)
        put_pair(tmp_path, f"{below}/{n}.png", f"{below.replace('images', 'masks')}/{n}.png", n)
    (tmp_path / "classes.txt").write_text("road 10 20 30\ngrass field, 1, 2, 3\nsky\n")
    data = open_masks(str(tmp_path), DataSettings())
    assert {name: keys(split) for name, split in data.splits.items()} == {
        "train": ["0", "1"], "validation": ["2"], "test": ["3"]
    }  # fmt: skip
    assert data.classes == ("road", "grass field", "sky")
    assert data.colours == ((10, 20, 30), (1, 2, 3), voc_colour(2))


def test_annot_folders_in_a_folder_and_in_an_archive(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for n, split in enumerate(("train", "train", "val", "test")):
        put_pair(root, f"{split}/{n}.jpg", f"{split}annot/{n}.png", n)
    data = open_masks(str(root), DataSettings())
    assert data.format == "annot folders" and [len(split) for split in data.splits.values()] == [2, 1, 1]
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in root.rglob("*.*"):
            archive.write(path, path.relative_to(tmp_path))
    zipped = open_masks(str(tmp_path / "set.zip"), DataSettings())
    assert torch.equal(zipped.splits["test"].record(0).mask, data.splits["test"].record(0).mask)
    named = open_masks(f"camvid:{root}", DataSettings())
    assert named.name == "camvid" and named.classes[10] == "bicyclist" and len(named.classes) == 11
    with pytest.raises(UsageError, match="camvid:FOLDER"):
        open_masks("camvid", DataSettings())


def test_voc_reads_palettes_and_ignores_255(tmp_path: Path) -> None:
    for n in range(4):
        put_pair(tmp_path, f"VOC/JPEGImages/{n}.jpg", f"VOC/SegmentationClass/{n}.png", n, palette=True)
    edged = numbers(0)
    edged[:5] = IGNORED
    put(tmp_path / "VOC/SegmentationClass/0.png", edged, palette=True)
    put(tmp_path / "VOC/JPEGImages/unannotated.jpg", np.zeros((20, 30, 3), np.uint8))
    lists = tmp_path / "VOC/ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0\n2\n")
    (lists / "val.txt").write_text("3\n")
    data = open_masks(str(tmp_path), DataSettings())
    assert data.format == "VOC masks" and {name: keys(one) for name, one in data.splits.items()} == {
        "train": ["0", "2"], "validation": ["3"]
    }  # fmt: skip
    assert np.array_equal(data.splits["train"].record(0).mask.numpy(), edged)
    assert data.splits["train"].pixels().sum() == 2 * 600 - 150
    (lists / "val.txt").write_text("3\nunannotated\n9\n")
    with pytest.raises(OrchardError, match=r"9: has no image; .*unannotated.jpg: has no mask"):
        open_masks(str(tmp_path), DataSettings())
    assert len(open_masks(str(tmp_path), SKIP).problems) == 2


def test_an_ignored_number_is_no_class(folder: Path) -> None:
    """Whether it is the last number or the first; the others keep their order."""
    (folder / "classes.txt").write_text("void\na\nb\n")
    data = open_masks(str(folder), MaskSettings(ignore_index=0))
    assert data.classes == ("a", "b")
    split = data.splits["train"]
    stem = Path(split.key(0)).stem
    expected = np.array([IGNORED, 0, 1], np.uint8)[numbers(int(stem))]
    assert np.array_equal(split.record(0).mask.numpy(), expected)


def test_small_depths_are_numbers_as_they_are(folder: Path) -> None:
    """A PNG of two bits a pixel, whose levels Pillow would spread from 0 to 255."""
    Image.fromarray(numbers(0)).save(folder / "masks" / "0.png", bits=2)
    deep = numbers(1).astype(np.int32)
    Image.fromarray(deep).convert("I;16").save(folder / "masks" / "1.png")
    data = open_masks(str(folder), DataSettings().for_evaluation(whole=True))
    for n in (0, 1):
        assert np.array_equal(data.splits["test"].record(n).mask.numpy(), numbers(n))


def test_what_is_wrong_is_named(folder: Path) -> None:
    put(folder / "masks/1.png", numbers(1, size=(20, 29)))
    put(folder / "masks/2.png", np.zeros((20, 30, 3), np.uint8))
    (folder / "masks/3.png").write_bytes(b"no picture")
    put(folder / "masks/4.png", numbers(4, high=9))
    (folder / "images/5.jpg").write_bytes(b"no picture")
    (folder / "masks/6.png").unlink()
    (folder / "images/7.jpg").unlink()
    (folder / "classes.txt").write_text("a\nb\nc\n")
    data = open_masks(str(folder), SKIP)
    assert sum(len(split) for split in data.splits.values()) == 1
    said = "\n".join(f"{one.key}: {one.what}" for one in data.problems)
    for part in (
        "masks/7.png: has no image; expected images/7.jpg",
        "images/6.jpg: has no mask",
        "masks/1.png: is 29x20, its image images/1.jpg is 30x20",
        "masks/2.png: is RGB, in colours; expected a number for each pixel",
        "masks/3.png: not a picture in a format that is read",
        "pixels of 3; the classes are 0 to 2 (set data.ignore_index for what is none)",
        "images/5.jpg: not a picture",
    ):
        assert part in said
    with pytest.raises(OrchardError, match=r"2 of 8 pictures are without a mask, or masks without one: masks/7.png"):
        open_masks(str(folder), DataSettings())


def test_sets_that_cannot_be_learned_are_refused(folder: Path, tmp_path: Path) -> None:
    for n in range(8):
        put(folder / f"masks/{n}.png", numbers(n, 2) * IGNORED)
    with pytest.raises(OrchardError, match="its masks have one class alone, as 255 is ignored"):
        open_masks(str(folder), DataSettings())
    (tmp_path / "none").mkdir()
    with pytest.raises(OrchardError, match="has no masks; expected PNG masks"):
        open_masks(str(tmp_path / "none"), DataSettings())
    with pytest.raises(UsageError, match="did you mean digit-scenes"):
        open_masks("digit-scene", DataSettings())


def test_digit_scenes_have_masks_that_fit_their_boxes() -> None:
    masks, boxes = SceneMasks("validation", 0), SceneBoxes("validation", 0)
    for index in range(5):
        record, objects = masks.record(index), boxes.objects(index)
        assert torch.equal(record.image, boxes.record(index).image)
        assert set(record.mask.unique().tolist()) == {0, *(objects.labels + 1).tolist()}
        for (left, top, right, bottom), label in zip(objects.boxes.astype(int), objects.labels, strict=True):
            inside = record.mask[top:bottom, left:right] == label + 1
            assert inside.any(0).all() or (objects.labels == label).sum() > 1 or inside.any()
    other = Relabelled(masks, list(range(10, -1, -1)))
    assert torch.equal(other.record(1).mask, 10 - masks.record(1).mask)
    assert other.pixels().tolist() == masks.pixels().tolist()[::-1]


def test_data_check_counts_pixels_and_draws(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert kind_by_look(str(folder)).name == "masks"  # type: ignore[union-attr]
    assert orchard("data", "check", folder, "--mosaic", tmp_path / "mosaic.png", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == "mask folders" and found["facts"]["classes"] == ["0", "1", "2"]
    assert sum(split["1"] for split in found["counts"].values()) == sum((numbers(n) == 1).sum() for n in range(8))
    assert Image.open(tmp_path / "mosaic.png").size[0] > 100
    assert [kind.name for kind in kinds_by_name("digit-scenes")] == ["boxes", "masks", "panoptic"]


def test_overlays_show_classes_and_leave_what_is_ignored() -> None:
    mask = np.array([[0, 1], [IGNORED, 1]], np.uint8)
    drawn = np.asarray(overlay(Image.new("RGB", (2, 2), (100, 100, 100)), mask, [(0, 0, 0), (200, 0, 0)], share=0.5))
    assert drawn.tolist() == [[[50, 50, 50], [150, 50, 50]], [[100, 100, 100], [150, 50, 50]]]
    assert [voc_colour(n) for n in (1, 2, 15, 20)] == [(128, 0, 0), (0, 128, 0), (192, 128, 128), (0, 64, 128)]


@pytest.mark.skipif(not CAMVID.is_file(), reason="CamVid is not here")
def test_camvid_as_it_is() -> None:
    data = open_masks(f"camvid:{CAMVID}", DataSettings())
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 367, "validation": 101, "test": 233}
    assert not data.problems and len(data.classes) == 11
    record = data.splits["test"].record(0)
    assert record.image.shape == (3, 360, 480) and record.mask.max() == IGNORED
