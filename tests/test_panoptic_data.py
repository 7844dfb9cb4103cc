"""Images with segments: COCO's panoptic form, digit scenes, what is wrong with either, and how segments move."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import orchard
from panoptic_files import STEP, write_segments
from PIL import Image

from orchard.data.annotated import vary
from orchard.data.boxes.named import SceneBoxes
from orchard.data.boxes.settings import BoxAugmentSettings
from orchard.data.contracts import Preprocess
from orchard.data.counter_rng import uniforms
from orchard.data.kinds import kind_by_look
from orchard.data.panoptic.collect import numbered
from orchard.data.panoptic.contracts import Relabelled, Segments
from orchard.data.panoptic.drawing import draw_segments, segment_colours
from orchard.data.panoptic.loader import PanopticLoader, boxes_of
from orchard.data.panoptic.named import SceneSegments
from orchard.data.panoptic.sources import open_panoptic
from orchard.data.scenes import make_scene
from orchard.data.settings import DataSettings
from orchard.data.sizing import Sizing
from orchard.errors import OrchardError, UsageError

SKIP = DataSettings(bad_records="skip").for_evaluation(whole=False)
GREY = Preprocess((64, 80), 3, (0.5,) * 3, (0.25,) * 3)
EVERYTHING = BoxAugmentSettings(flip=True, sides=(40, 48, 56), crop=0.5, crop_from=(60, 70), crop_sides=(30, 60))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_segments(tmp_path / "set", (4, 1, 1))


def change(folder: Path, how: Callable[[dict[str, Any]], None], split: str = "train") -> None:
    path = folder / "annotations" / f"panoptic_{split}.json"
    table = json.loads(path.read_text())
    how(table)
    path.write_text(json.dumps(table))


def test_coco_s_form_gives_what_was_written(folder: Path, tmp_path: Path) -> None:
    """In a folder and in an archive: images, segments, classes, which of them are things."""
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(tmp_path))
    for source in (folder, tmp_path / "set.zip"):
        kind = kind_by_look(str(source))
        assert kind is not None and kind.name == "panoptic"
        data = open_panoptic(str(source), DataSettings())
        assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "validation": 1, "test": 1}
        assert data.classes[:2] == ("0", "1") and data.classes[-1] == "noise" and data.channels == 3
        assert data.things == (True,) * 10 + (False,) * 4 and data.category_ids == tuple(range(3, 17))
        made = SceneSegments("train", 0)
        for n in range(4):
            found, expected = data.splits["train"].record(n), made.record(n)
            assert torch.equal(found.image, expected.image)
            assert torch.equal(found.segments.map, expected.segments.map)
            assert np.array_equal(found.segments.labels, expected.segments.labels)
    segments, pixels = data.splits["train"].counts()
    records = [made.record(n).segments for n in range(4)]
    assert segments.sum() == sum(len(one.labels) for one in records)
    assert pixels.sum() == sum(one.map.numel() for one in records)


def test_ids_become_numbers_in_the_order_of_the_list() -> None:
    ids = np.array([[0, 5, 300], [70_000, 5, 9]])
    assert numbered(ids, [300, 5, 70_000]).tolist() == [[0, 2, 1], [3, 2, 0]]
    assert numbered(ids, []).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_what_nobody_annotated_and_crowds_are_kept_apart(folder: Path) -> None:
    maps = folder / "annotations" / "panoptic_test"
    pixels = np.array(Image.open(maps / "test0.png"))
    pixels[:5] = 0
    Image.fromarray(pixels).save(maps / "test0.png")
    change(folder, lambda table: table["annotations"][0]["segments_info"][0].update(iscrowd=1), "test")
    found = open_panoptic(str(folder), DataSettings()).splits["test"].record(0).segments
    assert (found.map[:5] == 0).all() and (found.map[5:] > 0).all()
    assert found.crowd.tolist() == [True] + [False] * (len(found.labels) - 1)


def drop_image(table: dict[str, Any]) -> None:
    del table["images"][2]


def twice(table: dict[str, Any]) -> None:
    table["annotations"][3]["segments_info"][1]["id"] = STEP


def strange(table: dict[str, Any]) -> None:
    table["annotations"][0]["segments_info"][0]["category_id"] = 99


def unlisted(table: dict[str, Any]) -> None:
    del table["annotations"][1]["segments_info"][0]


def without_pixels(table: dict[str, Any]) -> None:
    table["annotations"][1]["segments_info"].append({"id": 7, "category_id": 3})


def unannotated(table: dict[str, Any]) -> None:
    del table["annotations"][0]


def gone(table: dict[str, Any]) -> None:
    table["images"][0]["file_name"] = "gone.png"


@pytest.mark.parametrize(
    "how, message",
    [
        (drop_image, "panoptic_train.json, train2.png: is of image 2, which is not in the table"),
        (twice, "train3.png: two segments have the same id"),
        (strange, "train0.png: segment 70000 is of category 99, which is not in the table"),
        (unlisted, "pixels of segment 70000, which is not listed in segments_info"),
        (without_pixels, "panoptic_train/train1.png: has no pixel of segment 7, which is listed"),
        (unannotated, "panoptic_train.json, train0.png: has no annotation"),
        (gone, "train0.png: there is no image gone.png"),
    ],
)
def test_wrong_tables_are_named_or_left_out(folder: Path, how: Callable[[dict[str, Any]], None], message: str) -> None:
    change(folder, how)
    with pytest.raises(OrchardError, match=r"of \d pictures or their segments are not right") as caught:
        open_panoptic(str(folder), DataSettings())
    assert message in str(caught.value)
    data = open_panoptic(str(folder), SKIP)
    assert len(data.problems) == 1 and len(data.splits["train"]) == 3


def test_wrong_pngs_are_named(folder: Path) -> None:
    maps = folder / "annotations" / "panoptic_train"
    Image.open(maps / "train0.png").resize((20, 10)).save(maps / "train0.png")
    Image.open(maps / "train1.png").convert("L").save(maps / "train1.png")
    (maps / "train2.png").unlink()
    (maps / "train3.png").write_bytes(b"no picture")
    data = open_panoptic(str(folder), SKIP)
    said = "\n".join(f"{one.key}: {one.what}" for one in data.problems)
    width, height = Image.open(folder / "train" / "train0.png").size
    for part in (
        f"train0.png: is 20x10, its image train/train0.png is {width}x{height}",
        "train1.png: is L; expected RGB, in which a segment's id is R + 256 G + 65536 B",
        "train2.png: there is no such PNG of segments; expected it in a folder panoptic_train",
        "train3.png: not a picture",
    ):
        assert part in said
    assert len(data.problems) == 4 and "train" not in data.splits


def test_tables_of_another_form_are_refused(folder: Path, tmp_path: Path) -> None:
    change(folder, lambda table: table["categories"][0].pop("isthing"))
    with pytest.raises(OrchardError, match="category 3 has no isthing; expected 1 of things, 0 of stuff"):
        open_panoptic(str(folder), DataSettings())
    change(folder, lambda table: table["categories"][0].update(isthing=1))
    change(folder, lambda table: table["annotations"][0].pop("file_name"))
    with pytest.raises(OrchardError, match="no table in COCO's panoptic form: KeyError"):
        open_panoptic(str(folder), DataSettings())
    change(folder, lambda table: table["categories"][0].update(name="1"))
    with pytest.raises(OrchardError, match=r"category 3 \('1'\) has another name or isthing"):
        open_panoptic(str(folder), DataSettings())
    (tmp_path / "none").mkdir()
    with pytest.raises(OrchardError, match="has no segments; expected COCO's panoptic form"):
        open_panoptic(str(tmp_path / "none"), DataSettings())
    with pytest.raises(UsageError, match="did you mean digit-scenes"):
        open_panoptic("digit-scene", DataSettings())


def test_digit_scenes_are_covered_and_fit_their_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchard.data.panoptic.named.COUNTED", 5)
    split, boxes = SceneSegments("validation", 0), SceneBoxes("validation", 0)
    for index in range(5):
        record, objects = split.record(index), boxes.objects(index)
        map, labels = record.segments.map, record.segments.labels
        assert torch.equal(record.image, boxes.record(index).image)
        assert map.min() == 1 and map.max() == len(labels)  # no pixel is left over
        things = labels < 10
        assert labels[things].tolist() == objects.labels.tolist() and (~things).sum() in (1, 2)
        height, width = map.shape
        middle = boxes_of(record.segments)[: things.sum()] * torch.tensor([width, height, width, height])
        expected = torch.from_numpy(objects.boxes)
        torch.testing.assert_close(middle[:, 2:], expected[:, 2:] - expected[:, :2])
        stuff = make_scene(0, "validation", index).stuff
        behind = torch.from_numpy(labels)[map.long() - 1] - 10
        assert torch.equal(behind[behind >= 0], stuff[behind >= 0])
    other = Relabelled(split, list(range(13, -1, -1)))
    assert np.array_equal(other.record(1).segments.labels, 13 - split.record(1).segments.labels)
    assert np.array_equal(other.counts()[0], split.counts()[0][::-1])


@pytest.mark.parametrize(
    "settings", [BoxAugmentSettings(flip=True), BoxAugmentSettings(crop=1.0, crop_sides=(20, 40)), EVERYTHING]
)
def test_segments_follow_their_images(settings: BoxAugmentSettings) -> None:
    """Of an image with three rectangles, each of the colour of its class; those that are cut off are gone."""
    map = torch.zeros(60, 90, dtype=torch.int32)
    map[5:25, 5:30], map[30:55, 10:80], map[10:20, 60:85] = 1, 2, 3
    segments = Segments(map, np.array([0, 1, 2]), np.array([False, False, True]))
    image = (torch.stack([map == n for n in (1, 2, 3)]) * 250).to(torch.uint8)
    seen = set()
    for row in uniforms(0, 0, np.arange(24)):
        cut, moved = vary(image, segments, settings, row, Sizing(60, None))
        assert cut.shape[1:] == moved.map.shape and moved.map.max() == len(moved.labels) == len(moved.crowd)
        assert moved.crowd.tolist() == (moved.labels == 2).tolist()
        for number, label in enumerate(moved.labels.tolist(), 1):
            wrong = (cut[label] > 125) != (moved.map == number)  # an edge between two pixels may fall to either side
            assert (moved.map == number).any() and wrong.float().mean() < 0.03
        seen.add(tuple(moved.labels.tolist()))
    assert len(seen) > 1 or settings.flip


def test_batches_are_pure_functions_and_evaluation_is_of_stored_sizes() -> None:
    def loader(rank: int = 0, world: int = 1) -> PanopticLoader:
        split = SceneSegments("train", 0)
        return PanopticLoader(split, GREY, Sizing(40, None), EVERYTHING, batch_size=4, rank=rank, world=world)

    whole, again = loader().batch(1, 5), next(loader().batches(1, 5))
    assert torch.equal(whole.images.values, again.images.values) and torch.equal(whole.maps, again.maps)
    assert whole.maps.shape == whole.images.mask.shape and not whole.maps[~whole.images.mask].any()
    assert whole.labels.lengths.tolist() == whole.maps.flatten(1).max(1).values.tolist()
    parts = [loader(rank, 2).batch(1, 5) for rank in range(2)]
    assert torch.equal(torch.cat([part.labels.values for part in parts]), whole.labels.values)
    stored = PanopticLoader(SceneSegments("test", 0), GREY, Sizing(40, None), None).batch(0, 2)
    assert torch.equal(stored.maps[0], SceneSegments("test", 0).record(2).segments.map)
    assert min(stored.images.values.shape[2:]) == 40


def test_data_check_counts_segments_and_draws(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert orchard("data", "check", folder, "--mosaic", tmp_path / "mosaic.png", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == "COCO panoptic" and found["facts"]["stuff"] == ["plain", "stripes", "checks", "noise"]
    labels = np.concatenate([SceneSegments("train", 0).record(n).segments.labels for n in range(4)])
    assert found["counts"]["train"]["noise"] == (labels == 13).sum() and found["counts"]["train"]["images"] == 4
    assert Image.open(tmp_path / "mosaic.png").size[0] > 400


def test_drawn_segments_have_their_colours() -> None:
    map = np.zeros((480, 480), np.int32)
    map[100:200, 100:200], map[300:400, 100:200] = 1, 2
    colours = segment_colours([0, 0, 1], [True, False])
    assert len({tuple(colour) for colour in colours.tolist()}) == 3
    drawn = np.asarray(draw_segments(Image.new("L", (480, 480), 100), map, colours[:2]))
    assert drawn[50, 50].tolist() == [100] * 3 and drawn[100, 150].tolist() == [255] * 3  # bare; a line between
    assert drawn[150, 150].tolist() == [round(45 + 0.55 * int(level)) for level in colours[0]]
