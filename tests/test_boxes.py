"""Pictures with boxes: digit scenes, and sets in the forms of COCO, Pascal VOC and YOLO."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from orchard.cli.data import data_app
from orchard.data.boxes.check import check_boxes
from orchard.data.boxes.sources import open_boxes
from orchard.data.boxes.voc import EDGES
from orchard.data.coco import split_of
from orchard.data.scenes import HEIGHTS, LEAST_VISIBLE, STUFF, THINGS, WIDTHS, make_scene, scans
from orchard.data.settings import CaptionSource, DataSettings
from orchard.errors import OrchardError, UsageError

BCCD = Path(__file__).parents[1].parent / "shared" / "data" / "bccd"
with_bccd = pytest.mark.skipif(not BCCD.is_dir(), reason="the BCCD set is not here")
SKIP = DataSettings(bad_records="skip")


# Digit scenes


def test_scenes_are_a_pure_function_of_seed_split_and_number():
    scene, again = make_scene(3, "train", 11), make_scene(3, "train", 11)
    for one, other in zip(vars(scene).values(), vars(again).values(), strict=True):
        assert torch.equal(one, other)
    others = [make_scene(4, "train", 11), make_scene(3, "test", 11), make_scene(3, "train", 12)]
    assert all(one.image.shape != scene.image.shape or not torch.equal(one.image, scene.image) for one in others)


def test_scenes_are_what_they_say():
    counts, kinds, labels = set(), set(), set()
    for index in range(60):
        scene = make_scene(0, "validation", index)
        _, height, width = scene.image.shape
        assert HEIGHTS[0] <= height <= HEIGHTS[1] and WIDTHS[0] <= width <= WIDTHS[1]
        assert scene.image.dtype == torch.uint8 and scene.boxes.dtype == torch.float32
        assert scene.masks.sum(0).max() == 1  # no pixel belongs to two
        for box, mask in zip(scene.boxes.long().tolist(), scene.masks, strict=True):
            left, top, right, bottom = box
            assert mask[top:bottom, left:right].sum() == mask.sum() > 0
            assert mask[top].any() and mask[bottom - 1].any() and mask[:, left].any() and mask[:, right - 1].any()
        assert scene.stuff.shape == (height, width) and set(scene.stuff.unique().tolist()) <= set(range(len(STUFF)))
        counts.add(len(scene.labels))
        kinds |= set(scene.stuff.unique().tolist())
        labels |= set(scene.labels.tolist())
    assert counts == {1, 2, 3, 4, 5, 6} and len(kinds) == len(STUFF) and len(labels) == len(THINGS)


def test_digits_of_scenes_are_visible_enough():
    """The last digit is whole; of the others, what is hidden was never more than allowed."""
    for index in range(20):
        scene = make_scene(1, "train", index)
        contrast = []
        for mask in scene.masks:
            inside = scene.image.float().mean(0)[mask].median()
            contrast.append(abs(float(inside - scene.image.float().mean(0)[~scene.masks.any(0)].median())))
        assert min(contrast) > 40, index
        boxes = scene.boxes
        shares = scene.masks.sum((1, 2)) / ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        assert shares.min() > 0.25 * LEAST_VISIBLE


def test_no_scan_is_in_two_splits():
    digests = [{one.numpy().tobytes() for one in scans(split)[0]} for split in ("train", "validation", "test")]
    assert [len(digest) for digest in digests] == [1257, 180, 360]
    assert not digests[0] & digests[1] and not digests[0] & digests[2] and not digests[1] & digests[2]


def test_scenes_are_a_set_with_boxes():
    data = open_boxes("digit-scenes", DataSettings())
    assert data.classes == THINGS and data.channels == 3 and list(data.splits) == ["train", "validation", "test"]
    record = data.splits["test"].record(7)
    scene = make_scene(0, "test", 7)
    assert torch.equal(record.image, scene.image) and record.key == "digit-scenes/test/7"
    assert np.array_equal(record.objects.boxes, scene.boxes.numpy()) and not record.objects.ignored.any()
    with pytest.raises(UsageError, match="did you mean digit-scenes"):
        open_boxes("digit-scene", DataSettings())


# Files


@pytest.fixture
def folder(tmp_path):
    """Four pictures and what a COCO file says of them."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for n in range(4):
        Image.fromarray(rng.integers(0, 256, (40 + n, 60, 3), np.uint8)).save(tmp_path / "images" / f"{n}.png")
    table = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 60, "height": 40 + n} for n in range(4)],
        "categories": [{"id": 7, "name": "bee"}, {"id": 3, "name": "ant"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 7, "bbox": [10, 5, 20, 30], "iscrowd": 0},
            {"id": 2, "image_id": 0, "category_id": 3, "bbox": [50, 30, 20, 20], "iscrowd": 1},  # over the edge
            {"id": 3, "image_id": 2, "category_id": 3, "bbox": [0, 0, 60, 42]},
        ],
    }
    return tmp_path, table


def write(folder, name, table):
    (folder / name).write_text(json.dumps(table))


def test_coco(folder):
    root, table = folder
    write(root, "instances.json", table)
    data = open_boxes(str(root), DataSettings(validation_fraction=0.25, test_fraction=0.25))
    assert data.format == "COCO" and data.classes == ("ant", "bee") and data.category_ids == (3, 7)
    assert {split: len(one) for split, one in data.splits.items()} == {"train": 2, "validation": 1, "test": 1}
    records = {Path(r.key).name: r for s in data.splits.values() for r in map(s.record, range(len(s)))}
    first = records["0.png"].objects
    assert first.boxes.tolist() == [[10, 5, 30, 35], [50, 30, 60, 40]]  # cut off at the edge
    assert first.labels.tolist() == [1, 0] and first.ignored.tolist() == [False, True]
    assert records["1.png"].objects.boxes.shape == (0, 4) and records["1.png"].image.shape == (3, 41, 60)
    assert torch.equal(
        records["2.png"].image, torch.from_numpy(np.array(Image.open(root / "images/2.png"))).permute(2, 0, 1)
    )


def test_coco_in_an_archive_and_by_its_file(folder, tmp_path):
    root, table = folder
    write(root, "annotations_train.json", table)
    write(root, "annotations_val.json", table)
    as_folder = open_boxes(str(root), DataSettings())
    assert {split: len(one) for split, one in as_folder.splits.items()} == {"train": 4, "validation": 4}
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted(root.rglob("*.*")):
            if path.suffix != ".zip":
                archive.write(path, f"set/{path.relative_to(root)}")
    zipped = open_boxes(str(tmp_path / "set.zip"), DataSettings())
    assert torch.equal(zipped.splits["train"].record(3).image, as_folder.splits["train"].record(3).image)
    alone = open_boxes(str(root / "annotations_val.json"), DataSettings())
    assert {split: len(one) for split, one in alone.splits.items()} == {"validation": 4}
    assert open_boxes(str(root), DataSettings()).fingerprint == as_folder.fingerprint != zipped.fingerprint


def test_what_is_wrong_in_coco_is_named(folder):
    root, table = folder
    table["annotations"] += [
        {"id": 4, "image_id": 1, "category_id": 3, "bbox": [5, 5, 0, 9]},
        {"id": 5, "image_id": 1, "category_id": 9, "bbox": [5, 5, 9, 9]},
        {"id": 6, "image_id": 8, "category_id": 3, "bbox": [5, 5, 9, 9]},
    ]
    table["images"][3]["width"] = 61
    write(root, "a.json", table)
    with pytest.raises(OrchardError, match=r"4 annotations are wrong: .*category 9 is not in the table"):
        open_boxes(str(root), DataSettings())
    data = open_boxes(str(root), SKIP)
    said = "\n".join(f"{p.key}: {p.what}" for p in data.problems)
    for part in (
        "a.json, annotation 6: picture 8 is not in the table",
        "a.json, annotation 4: a box of 'ant' has no area (5, 5, 5, 14)",
        "a.json: is for a picture of 61x43, images/3.png has 60x43",
    ):
        assert part in said
    assert len(data.problems) == 4 and sum(len(split) for split in data.splits.values()) == 4
    (root / "images" / "2.png").write_bytes(b"no picture")
    with pytest.raises(OrchardError, match=r"1 of 4 pictures cannot be read: images/2.png: not a picture"):
        open_boxes(str(root), DataSettings())
    (root / "images" / "2.png").unlink()
    for beside in ("x", "y"):  # pictures of the same names say nothing about what is missing
        (root.parent / beside).mkdir(exist_ok=True)
        for n in range(4):
            (root.parent / beside / f"{n}.png").write_bytes(b"")
    with pytest.raises(OrchardError, match=r"a.json, image 2: names '2.png', and there is no such picture"):
        open_boxes(str(root), DataSettings())
    assert sum(len(split) for split in open_boxes(str(root), SKIP).splits.values()) == 3
    table["images"][0].pop("file_name")
    write(root, "a.json", table)
    with pytest.raises(OrchardError, match=r"a.json is no table in the form of COCO: KeyError 'file_name'"):
        open_boxes(str(root), DataSettings())


def test_two_coco_files_of_unclear_or_unlike_names_are_refused(folder):
    root, table = folder
    write(root, "a.json", table)
    write(root, "train.json", table)
    with pytest.raises(OrchardError, match=r"the name of a.json says no split"):
        open_boxes(str(root), DataSettings())
    table["categories"][0]["name"] = "wasp"
    write(root, "a.json", table)
    with pytest.raises(OrchardError, match=r"category 7 is 'bee', in another file it is not"):
        open_boxes(str(root), DataSettings())


def test_splits_of_coco_s_own_names():
    named = {"instances_train2017.json": "train", "a/instances_val2017.json": "validation", "test-dev.json": "test"}
    assert {name: split_of(name) for name in named} == named and split_of("constraint.json") == ""


def test_voc(folder):
    root, _ = folder
    (root / "Annotations").mkdir()
    for n in range(4):
        boxes = "".join(
            f"<object><name>{name}</name><difficult>{n % 2}</difficult><bndbox><xmin>{n}</xmin><ymin>2</ymin>"
            f"<xmax>{n + 10}</xmax><ymax>20</ymax></bndbox></object>"
            for name in ("dog", "cat")[: 1 + n % 2]
        )
        size = f"<size><width>60</width><height>{40 + n}</height></size>"
        (root / "Annotations" / f"{n}.xml").write_text(f"<annotation>{size}{boxes}</annotation>")
    data = open_boxes(str(root), DataSettings(validation_fraction=0.25, test_fraction=0))
    assert data.format == "VOC" and data.classes == ("cat", "dog") and data.category_ids is None
    assert {split: len(one) for split, one in data.splits.items()} == {"train": 3, "validation": 1}
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for split, lines in (("train", "0\n3\n"), ("val", "1\n"), ("dog_train", "2 1\n")):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(lines)
    data = open_boxes(str(root), DataSettings())
    assert [Path(data.splits["train"].key(n)).stem for n in range(2)] == ["0", "3"]
    objects = data.splits["train"].objects(1)
    assert objects.labels.tolist() == [1, 0] and objects.ignored.all()
    assert objects.boxes.tolist() == [[3, 2, 13, 20]] * 2
    (root / "Annotations" / "1.xml").write_text("<annotation><object>")
    with pytest.raises(OrchardError, match=r"Annotations/1.xml: is not in the form of VOC"):
        open_boxes(str(root), DataSettings())


def test_yolo(folder):
    root, _ = folder
    for n, split in enumerate(("train", "train", "val", "test")):
        (root / "images" / split).mkdir(exist_ok=True)
        (root / "labels" / split).mkdir(parents=True, exist_ok=True)
        (root / "images" / f"{n}.png").rename(root / "images" / split / f"{n}.png")
        if n != 1:  # a picture without objects needs no file
            (root / "labels" / split / f"{n}.txt").write_text(f"{n % 2} 0.5 0.5 0.2 0.5\n")
    data = open_boxes(str(root), DataSettings())
    assert data.format == "YOLO" and data.classes == ("0", "1")
    assert {split: len(one) for split, one in data.splits.items()} == {"train": 2, "validation": 1, "test": 1}
    np.testing.assert_allclose(data.splits["train"].objects(0).boxes, [[24, 10, 36, 30]], rtol=1e-6)
    assert len(data.splits["train"].objects(1).boxes) == 0
    (root / "data.yaml").write_text("names:\n  0: ant\n  1: bee\n")
    assert open_boxes(str(root), DataSettings()).classes == ("ant", "bee")
    (root / "data.yaml").write_text("names: [ant]\n")
    with pytest.raises(OrchardError, match=r"labels/test/3.txt, line 1: is of class 1; expected 0 to 0"):
        open_boxes(str(root), DataSettings())
    (root / "data.yaml").unlink()
    (root / "labels" / "val" / "2.txt").write_text("0 0.5\n")
    with pytest.raises(OrchardError, match=r"labels/val/2.txt, line 1: expected a class and four numbers"):
        open_boxes(str(root), DataSettings())


def keys_of(data) -> list[str]:
    return [split.key(n) for split in data.splits.values() for n in range(len(split))]


def problems_of(root: Path) -> list[str]:
    """What is refused, one line each, and left out if that is asked for."""
    with pytest.raises(OrchardError, match=r"annotations are wrong"):
        open_boxes(str(root), DataSettings())
    return [f"{one.key}: {one.what}" for one in open_boxes(str(root), SKIP).problems]


def test_bad_boxes_of_coco_are_named(folder):
    root, table = folder
    boxes = [
        [-9, 5, 5, 9],
        [70, 5, 9, 9],
        [5, 5, -9, 9],
        [float("nan"), 5, 9, 9],
        [5, 5, 1e300, 9],
        [5, 5],
        None,
        "abcd",
    ]
    table["annotations"] = [{"id": n, "image_id": n % 4, "category_id": 3, "bbox": box} for n, box in enumerate(boxes)]
    table["annotations"] += [{"id": 8, "image_id": 0, "bbox": [1, 1, 2, 2]}, {"id": 9, "category_id": 3, "image_id": 0}]
    table["images"].append(table["images"][0] | {"file_name": "1.png"})
    write(root, "a.json", table)
    assert problems_of(root) == [
        "a.json, annotation 5: bbox is [5, 5]; expected four numbers",
        "a.json, annotation 6: bbox is None; expected four numbers",
        "a.json, annotation 7: bbox is abcd; expected four numbers",
        "a.json, annotation 8: category None is not in the table",
        "a.json, annotation 9: bbox is None; expected four numbers",
        "a.json, image 0: '1.png' has the id of another picture",
        "a.json, annotation 0: a box of 'ant' lies outside of the picture (-9, 5, -4, 14)",
        "a.json, annotation 4: a box of 'ant' has corners that are no finite numbers (5, 5, 1e+300, 14)",
        "a.json, annotation 1: a box of 'ant' lies outside of the picture (70, 5, 79, 14)",
        "a.json, annotation 2: a box of 'ant' has no area (5, 5, -4, 14)",
        "a.json, annotation 3: a box of 'ant' has corners that are no finite numbers (nan, 5, nan, 14)",
    ]


def test_bad_boxes_and_missing_pictures_of_voc_are_named(folder):
    root, _ = folder
    (root / "Annotations").mkdir()

    def annotate(name, edges, label="ant", filename=""):
        corners = "".join(f"<{edge}>{value}</{edge}>" for edge, value in zip(EDGES, edges, strict=False))
        box = f"<object><name>{label}</name><bndbox>{corners}</bndbox></object>"
        text = f"<annotation><filename>{filename}</filename>{box}</annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(text)

    annotate("0", (1, 2, 9, 9))
    annotate("1", (1, 2, "nan", 9))
    annotate("2", (9, 2, 9, 9))
    annotate("3", (100, 2, 109, 9))
    annotate("4", (1, 2, 9, 9))
    annotate("5", (1, 2, 9), filename="3.png")
    annotate("6", (1, 2, 9, 9), label="", filename="3.png")
    assert problems_of(root) == [
        "Annotations/4.xml: annotates a picture that is not there; expected 4.jpg or another kind",
        "Annotations/5.xml: is not in the form of VOC: object 1 ('ant') has no box of numbers xmin, ymin, xmax, ymax",
        "Annotations/6.xml: is not in the form of VOC: object 1 has no name",
        "Annotations/1.xml, object 1: a box of 'ant' has corners that are no finite numbers (1, 2, nan, 9)",
        "Annotations/2.xml, object 1: a box of 'ant' has no area (9, 2, 9, 9)",
        "Annotations/3.xml, object 1: a box of 'ant' lies outside of the picture (100, 2, 109, 9)",
    ]
    for name in "123456":
        annotate(name, (1, 2, 9, 9)) if name in "123" else (root / "Annotations" / f"{name}.xml").unlink()
    (root / "SegmentationClass").mkdir()  # PNGs of the same names, as VOC 2012 has them
    Image.new("L", (60, 40)).save(root / "SegmentationClass" / "0.png")
    assert str(root / "images" / "0.png") in keys_of(open_boxes(str(root), DataSettings()))
    (root / "images").rename(root / "photos")
    with pytest.raises(
        OrchardError, match=r"0.xml: annotates one of several pictures \(SegmentationClass/0.png, photos"
    ):
        open_boxes(str(root), DataSettings())


def test_bad_boxes_and_missing_pictures_of_yolo_are_named(folder):
    root, _ = folder
    (root / "labels").mkdir()
    (root / "labels" / "0.txt").write_text("3 0.5 0.5 0.2 0.2\n-1 0.5 0.5 0.2 0.2\n99999999999 0.5 0.5 0.2 0.2\n")
    (root / "labels" / "1.txt").write_text("0 nan 0.5 0.2 0.2\n0 0.5 0.5 0 0.2\n0 1.5 0.5 0.2 0.2\n0 0.5 x 0.2 0.2\n")
    (root / "labels" / "7.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "labels" / "classes.txt").write_text("")
    found = problems_of(root)
    assert found == [
        "labels/0.txt, line 2: is of class -1; expected 0 to 9999",
        "labels/0.txt, line 3: is of class 99999999999; expected 0 to 9999",
        "labels/1.txt, line 4: expected a class and four numbers",
        "labels/7.txt: there is no picture for it in a folder images",
        "labels/1.txt, line 1: a box of '0' has corners that are no finite numbers (nan, 0.4, nan, 0.6)",
        "labels/1.txt, line 2: a box of '0' has no area (0.5, 0.4, 0.5, 0.6)",
        "labels/1.txt, line 3: a box of '0' lies outside of the picture (1.4, 0.4, 1.6, 0.6)",
    ]
    assert open_boxes(str(root), SKIP).classes == ("0", "1", "2", "3")


@pytest.mark.parametrize("place", ["images", "photos", "train2017", "images/train2017", "."])
def test_pictures_of_coco_are_found_beside_the_folder_of_annotations(folder, place):
    root, table = folder
    (root / "annotations").mkdir()
    write(root, "annotations/instances_train.json", table)
    expected = keys_of(open_boxes(str(root), DataSettings()))
    pictures = sorted((root / "images").iterdir())
    (root / place).mkdir(exist_ok=True, parents=True)
    for picture in pictures:
        picture.rename(root / place / picture.name)
    for source in ("annotations", "annotations/instances_train.json"):
        data = open_boxes(str(root / source), DataSettings())
        assert [Path(key).name for key in keys_of(data)] == [Path(key).name for key in expected]
        assert all(split.record(n).image.shape[2] == 60 for split in data.splits.values() for n in range(len(split)))
        assert data.notes == (f"its pictures were found in {root / place}",)


def test_pictures_of_the_same_name_are_told_apart_or_named(folder):
    root, table = folder
    write(root, "instances_train.json", table)
    (root / "thumbs").mkdir()
    (root / "thumbs" / "0.png").write_bytes((root / "images" / "1.png").read_bytes())
    keys = keys_of(open_boxes(str(root), DataSettings()))
    assert str(root / "images" / "0.png") in keys and len(keys) == 4  # the usual name of a folder of pictures
    (root / "images").rename(root / "photos")
    words = r"image 0: names '0.png', of which there are several \(photos/0.png, thumbs/0.png\); give its folder too"
    with pytest.raises(OrchardError, match=words):
        open_boxes(str(root), DataSettings())
    table["images"][0]["file_name"] = "photos/0.png"
    write(root, "instances_train.json", table)
    assert str(root / "photos" / "0.png") in keys_of(open_boxes(str(root), DataSettings()))
    (root / "far" / "away").mkdir(parents=True)
    (root / "photos").rename(root / "far" / "away" / "photos")
    (root / "thumbs" / "0.png").unlink()
    (root / "annotations").mkdir()
    write(root, "annotations/instances_train.json", table)
    words = (
        r"none of the 4 pictures .* is there, such as 'photos/0.png'; looked in .*/annotations and below, .*data.root"
    )
    with pytest.raises(OrchardError, match=words):
        open_boxes(str(root / "annotations"), DataSettings())
    assert len(keys_of(open_boxes(str(root / "annotations"), DataSettings(root=str(root / "far"))))) == 4


def test_what_has_no_boxes_is_refused(folder):
    root, _ = folder
    with pytest.raises(OrchardError, match="has no boxes; expected JSON files in the form of COCO"):
        open_boxes(str(root), DataSettings())
    with pytest.raises(UsageError, match="is no set with boxes"):
        open_boxes(str(root / "images" / "0.png"), DataSettings())


# data check


def test_data_check_lists_what_to_look_at(folder, tmp_path):
    root, table = folder
    table["categories"].append({"id": 5, "name": "wasp"})
    table["annotations"] += [
        {"id": 4, "image_id": 2, "category_id": 3, "bbox": [0, 0, 60, 42]},  # as 3
        {"id": 5, "image_id": 2, "category_id": 7, "bbox": [0, 0, 60, 42]},
        {"id": 6, "image_id": 2, "category_id": 7, "bbox": [5, 5, 0.3, 0.3]},
        {"id": 7, "image_id": 1, "category_id": 7, "bbox": [5, 5, 0, 3]},
        {"id": 8, "image_id": 1, "category_id": 7, "bbox": [65, 5, 3, 3]},
    ]
    write(root, "instances_train.json", table)
    (root / "images" / "9.png").write_bytes((root / "images" / "2.png").read_bytes())
    other = {"images": [{"id": 1, "file_name": "9.png"}], "annotations": table["annotations"][:1]}
    other["annotations"] = [table["annotations"][0] | {"image_id": 1, "bbox": [1, 2, 5, 6]}]
    write(root, "instances_test.json", table | other)
    (root / "images" / "3.png").write_bytes((root / "images" / "1.png").read_bytes())
    del table["images"][3]["height"]
    write(root, "instances_train.json", table)
    found = check_boxes(str(root), CaptionSource(source=str(root)))
    counts = {name: sum(column.get(name, 0) for column in found.counts.values()) for name in found.counts["train"]}
    assert counts["images"] == 5 and counts["without objects"] == 2 and counts["all objects"] == 7
    assert (counts["ant"], counts["bee"], counts["wasp"], counts["tiny objects"]) == (3, 4, 0, 1)
    assert max(column["most in one image"] for column in found.counts.values()) == 4
    lists = {name: lines for name, lines in found.lists.items() if lines}
    first = str(root / "images" / "2.png")
    assert lists["box that several annotations have"] == (f"{first}: ant, ant, bee (0, 0, 60, 42)",)
    assert lists["tiny object"] == (f"{first}: bee of 0.3 x 0.3 pixels",)
    assert lists["box cut off at the edge of the picture"] == ("instances_train.json, annotation 2",)
    assert [line.count(".png") for line in lists["image in several splits"]] == [2]
    assert [line.count(".png") for line in lists["image more than once in one split"]] == [2]
    assert len(found.problems) == 2 and found.facts["boxes left out"] == "1 no area, 1 outside"
    assert json.loads(json.dumps(found.to_json()))["lists"]["tiny object"]


def test_data_check_draws_boxes_and_prints_tables(folder, tmp_path):
    root, table = folder
    write(root, "a.json", table)
    done = CliRunner().invoke(data_app, ["check", str(root), "--mosaic", str(tmp_path / "mosaic.png")])
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "mosaic.png") as drawn:
        assert drawn.mode == "RGB" and drawn.width > 240
    shown = done.output
    assert "most in one image" in shown and "1 x box cut off at the edge of the picture" in shown


@with_bccd
def test_bccd_as_coco():
    data = open_boxes(str(BCCD), DataSettings())
    assert data.format == "COCO" and data.classes == ("RBC", "WBC", "Platelets") and not data.problems
    counts = {name: (len(s), sum(len(s.objects(n).labels) for n in range(len(s)))) for name, s in data.splits.items()}
    assert counts == {"train": (205, 2804), "validation": (87, 1137), "test": (72, 945)}
    assert data.splits["train"].record(0).image.shape == (3, 480, 640)


@with_bccd
def test_of_several_layouts_the_other_can_be_named():
    data, of_coco, of_voc = (open_boxes(str(BCCD / part), SKIP) for part in ("", "coco", "Annotations"))
    (note,) = data.notes
    assert "364 files in the form of Pascal VOC are there too" in note and "name their folder Annotations" in note
    assert of_coco.notes == (f"its pictures were found in {BCCD / 'JPEGImages'}",)
    assert of_voc.format == "VOC" and not of_voc.notes and len(of_voc.problems) == 2
    for other in (of_coco, of_voc):
        assert {name: len(s) for name, s in other.splits.items()} == {name: len(s) for name, s in data.splits.items()}


@with_bccd
def test_bccd_as_voc(tmp_path):
    for part in ("Annotations", "ImageSets", "JPEGImages"):
        (tmp_path / part).symlink_to(BCCD / part)
    with pytest.raises(
        OrchardError, match=r"2 annotations are wrong: Annotations/BloodImage_003\d\d.xml, object \d+: a box of 'RBC'"
    ):
        open_boxes(str(tmp_path), DataSettings())
    data = open_boxes(str(tmp_path), SKIP)
    assert data.format == "VOC" and data.classes == ("Platelets", "RBC", "WBC") and len(data.problems) == 2
    as_coco = open_boxes(str(BCCD), DataSettings())
    for split, pictures in as_coco.splits.items():
        ours = {Path(data.splits[split].key(n)).name: data.splits[split].objects(n) for n in range(len(pictures))}
        for n in range(len(pictures)):
            objects, other = pictures.objects(n), ours[Path(pictures.key(n)).name]
            assert np.array_equal(objects.boxes, other.boxes)
            assert [as_coco.classes[k] for k in objects.labels] == [data.classes[k] for k in other.labels]
