"""Sets, splits, reading, preprocessing and `data check`."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import orchard
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import datasets

from orchard.data import AugmentSettings, DataSettings, Loader, Preprocess, default_preprocess, open_data
from orchard.data import named as named_sets
from orchard.data.augment import resized_crops
from orchard.data.check import check, draw_mosaic
from orchard.data.files import Folder, look
from orchard.data.pictures import open_picture, plain
from orchard.data.preprocess import fit, kept_box
from orchard.data.splits import hold_out
from orchard.errors import OrchardError

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
EVERYTHING = AugmentSettings(
    crop="resized", flip=True, rotate=20, scale=0.2, shift=0.1, color=0.4, erase=0.5
)  # fmt: skip


# Named sets


def test_digits_have_our_fixed_split(digits):
    assert {name: len(split) for name, split in digits.splits.items()} == {
        "train": 1257,
        "validation": 180,
        "test": 360,
    }
    for split in digits.splits.values():
        share = np.bincount(split.labels, minlength=10) / len(split)
        assert share.min() > 0.09 and share.max() < 0.11
    places = np.concatenate([split.places for split in digits.splits.values()])
    assert sorted(places) == list(range(1797))
    # The split is the same for everybody: a figure reached on it can be compared.
    assert digits.fingerprint == "a234ec0d572750c4ffe1d1ed17f5e4241402d939b69994337653c82469bd06bf"
    assert open_data("digits", DataSettings(split_seed=5)).fingerprint == digits.fingerprint


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    data = header + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize(("below", "ending"), [("", ".gz"), ("MNIST/raw", "")])
def test_idx_files_are_found_directly_and_where_torchvision_puts_them(tmp_path, below, ending):
    folder = tmp_path / below
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    pictures = {part: rng.integers(0, 256, (n, 28, 28), np.uint8) for part, n in (("train", 200), ("t10k", 50))}
    for part, array in pictures.items():
        write_idx(folder / f"{part}-images-idx3-ubyte{ending}", array)
        write_idx(folder / f"{part}-labels-idx1-ubyte{ending}", (np.arange(len(array)) % 10).astype(np.uint8))
    data = open_data(f"mnist:{tmp_path}", DataSettings(validation_fraction=0.2))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 160, "validation": 40, "test": 50}
    assert np.array_equal(np.bincount(data.splits["validation"].labels), np.full(10, 4))
    assert data.classes[:2] == ("zero", "one") or data.classes[:2] == ("0", "1")
    assert torch.equal(data.splits["test"].image(7)[0], torch.from_numpy(pictures["t10k"][7]))
    held = data.splits["validation"]
    assert torch.equal(held.image(3)[0], torch.from_numpy(pictures["train"][held.places[3]]))


@pytest.mark.skipif(not (SHARED / "fashion-mnist").exists(), reason="Fashion-MNIST is not beside the checkout")
def test_fashion_mnist_as_published():
    data = open_data("fashion-mnist", DataSettings(root=str(SHARED / "fashion-mnist")))
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 54000, "validation": 6000, "test": 10000
    }  # fmt: skip
    assert data.classes[9] == "Ankle boot"
    preprocess = default_preprocess(data, 28, 1)
    assert preprocess.mean == pytest.approx((0.2860,), abs=1e-3)  # published for all 60,000
    assert preprocess.std == pytest.approx((0.3530,), abs=1e-3)


def test_cifar_is_read_from_torchvisions_files(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    files = {}
    for name, count in (("data_batch_1", 40), ("test_batch", 20)):
        table = {"data": rng.integers(0, 256, (count, 3072), np.uint8), "labels": [n % 10 for n in range(count)]}
        files[name] = pickle.dumps(table)
    files["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")})
    import hashlib

    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    for source in (tmp_path, folder):
        data = open_data(f"cifar10:{source}", DataSettings())
        assert data.classes == tuple("abcdefghij") and data.channels == 3
        assert {name: len(split) for name, split in data.splits.items()} == {"train": 36, "validation": 4, "test": 20}
    stored = pickle.loads(files["test_batch"])["data"][5].reshape(3, 32, 32)
    assert torch.equal(data.splits["test"].image(5), torch.from_numpy(stored))


# Image folders, archives and tables


def test_a_folder_without_splits_is_split_the_same_way_every_time(photos):
    settings = DataSettings(validation_fraction=0.25, test_fraction=0.25)
    data, again = open_data(str(photos), settings), open_data(str(photos), settings)
    assert data.classes == ("ant", "bee", "cat") and data.format == "image folder" and data.channels == 3
    counts = np.array([np.bincount(s.labels, minlength=3) for s in data.splits.values()])
    assert list(data.splits) == ["train", "validation", "test"] and counts.sum(0).tolist() == [8, 8, 8]
    assert counts.sum(1).min() >= 3 and counts[0].min() >= 1  # about a quarter, and something of each to learn from
    assert data.fingerprint == again.fingerprint
    assert [s.names for s in data.splits.values()] == [s.names for s in again.splits.values()]
    other = open_data(str(photos), settings.model_copy(update={"split_seed": 1}))
    assert other.fingerprint != data.fingerprint


def test_an_archive_is_read_as_the_folder_it_holds(photos, tmp_path):
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(photos.rglob("*.jpg")):
            packed.write(file, "wrapped/" + file.relative_to(photos).as_posix())
        packed.writestr("__MACOSX/wrapped/ant/._0.jpg", b"not a picture")
    folder, zipped = open_data(str(photos), DataSettings()), open_data(str(archive), DataSettings())
    assert zipped.classes == folder.classes and not zipped.problems and "zip archive" in zipped.reason
    for split in folder.splits:
        assert torch.equal(folder.splits[split].image(0), zipped.splits[split].image(0))
    preprocess = default_preprocess(zipped, 48, 3)
    loaders = [
        Loader(zipped.splits["train"], preprocess, EVERYTHING, batch_size=6, seed=0, workers=workers)
        for workers in (0, 2)
    ]
    assert all(torch.equal(a.images, b.images) for a, b in zip(*(loader.batches(0) for loader in loaders), strict=True))


@pytest.mark.skipif(not (SHARED / "cifar").exists(), reason="the CIFAR subset is not beside the checkout")
def test_the_cifar_archive_has_its_splits():
    data = open_data(str(SHARED / "cifar" / "cifar10-jpeg-subset.zip"), DataSettings())
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 9005,
        "validation": 995,
        "test": 2000,
    }
    assert len(data.classes) == 10 and data.splits["train"].small


def test_given_splits_are_kept(photos, tmp_path):
    for split, numbers in (("Train", (0, 1)), ("val", (2,)), ("test", (3,))):
        for label in ("ant", "bee"):
            (tmp_path / split / label).mkdir(parents=True)
            for number in numbers:
                (tmp_path / split / label / f"{number}.jpg").write_bytes(
                    (photos / label / f"{number}.jpg").read_bytes()
                )
    data = open_data(str(tmp_path), DataSettings())
    assert {n: len(s) for n, s in data.splits.items()} == {"train": 4, "validation": 2, "test": 2}


def test_a_nested_class_folder_is_reported(photos, tmp_path):
    for name in ("ant/a/0.jpg", "ant/a/1.jpg", "ant/2.jpg", "bee/0.jpg", "bee/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((photos / "cat" / f"{name[-5]}.jpg").read_bytes())
    (tmp_path / "notes.txt").write_text("hello")
    data = open_data(str(tmp_path), DataSettings(test_fraction=0))
    assert data.classes == ("ant", "bee")
    assert {p.key: p.what for p in data.problems} == {
        "ant/a": "2 pictures in a folder inside a class, taken as 'ant' (data.classes=leaf or path: as its own)",
        "*.txt": "1 files are no pictures by their names; left out",
    }


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_tables_of_path_and_label(photos, tmp_path, delimiter):
    quoted = '"ant, ""red"""' if delimiter == "," else "ant, red"
    rows = [["Filename", "Class", "split"]]
    for number in range(4):
        split = ("train", "train", "validation", "test")[number]
        rows += [[f"ant/{number}.jpg", quoted, split], [str(photos / "bee" / f"{number}.jpg"), "bee", split]]
    table = photos / f"table-{ord(delimiter)}.csv"
    table.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(delimiter.join(row) for row in rows).encode())
    data = open_data(str(table), DataSettings())
    assert data.format == "table" and data.classes == ('ant, "red"' if delimiter == "," else "ant, red", "bee")
    assert {n: len(s) for n, s in data.splits.items()} == {"train": 4, "validation": 2, "test": 2}
    assert not data.problems


def test_whole_numbers_are_sorted_by_value(photos):
    rows = "\n".join(f"ant/{n}.jpg,{label}" for n, label in enumerate((10, 2, 10, 2, 1, 1)))
    (photos / "numbers.csv").write_text("path,label\n" + rows)
    assert open_data(str(photos / "numbers.csv"), DataSettings(test_fraction=0)).classes == ("1", "2", "10")


@given(st.lists(st.integers(0, 4), min_size=8, max_size=60), st.floats(0.05, 0.6), st.integers(0, 3))
def test_holding_out_is_a_partition_that_leaves_every_class_something(labels, fraction, seed):
    array = np.array(labels)
    keep, held = hold_out(array, fraction, seed)
    assert sorted([*keep, *held]) == list(range(len(array)))
    assert set(array[keep]) == set(array) and len(held) >= 1
    for label in set(labels):  # each class is within one record of its share
        assert abs((array[held] == label).sum() - min(fraction * labels.count(label), labels.count(label) - 1)) <= 1


# Reading pictures


def read(picture: Image.Image, format: str, channels: int = 3, **options: object) -> np.ndarray:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return np.asarray(plain(open_picture(file), channels))


def test_sixteen_bits_keep_their_upper_byte():
    values = np.array([[0, 257 * 100], [65535, 257 * 7]], np.uint16)
    assert read(Image.fromarray(values), "PNG", 1).tolist() == [[0, 100], [255, 7]]
    assert read(Image.fromarray(values), "TIFF", 1).tolist() == [[0, 100], [255, 7]]


CLEAR = (255, 255, 255)
LEVELS = {  # mode: one pixel, and what it becomes, as grey and as RGB
    "1": (1, 255, CLEAR),
    "L": (90, 90, (90, 90, 90)),
    "LA": ((90, 0), 255, CLEAR),
    "La": ((90, 255), 90, (90, 90, 90)),
    "P": (1, 76, (255, 0, 0)),
    "PA": ((1, 0), 255, CLEAR),
    "RGB": ((255, 0, 0), 76, (255, 0, 0)),
    "RGBX": ((255, 0, 0, 7), 76, (255, 0, 0)),
    "RGBA": ((255, 0, 0, 0), 255, CLEAR),
    "RGBa": ((255, 0, 0, 255), 76, (255, 0, 0)),
    "CMYK": ((0, 255, 255, 0), 76, (255, 0, 0)),
    "YCbCr": ((76, 85, 255), 76, (254, 0, 0)),
    "LAB": ((255, 128, 128), 255, CLEAR),
    "HSV": ((0, 255, 255), 76, (255, 0, 0)),
    "I": (40000, 156, (156, 156, 156)),
    "I;16": (40000, 156, (156, 156, 156)),
    "I;16L": (40000, 156, (156, 156, 156)),
    "I;16B": (40000, 156, (156, 156, 156)),
    "I;16N": (40000, 156, (156, 156, 156)),
    "F": (0.5, 128, (128, 128, 128)),
}


@pytest.mark.parametrize("mode", sorted({*LEVELS, *Image.MODES}))
def test_every_mode_of_pillow_is_read_by_one_rule(mode: str) -> None:
    level, grey, color = LEVELS[mode]
    picture = Image.new(mode, (2, 2), 0)
    if mode in ("P", "PA"):
        picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.putpixel((1, 1), level)
    assert plain(picture, 1).mode == "L" and plain(picture, 3).mode == "RGB"
    assert plain(picture, 1).getpixel((1, 1)) == pytest.approx(grey, abs=1)
    assert plain(picture, 3).getpixel((1, 1)) == pytest.approx(color, abs=1)


@pytest.mark.parametrize(
    ("mode", "level"), [("F", 1.5), ("F", -0.1), ("F", float("nan")), ("F", float("inf")), ("I", 70000), ("I", -1)]
)
def test_levels_of_unknown_range_are_refused(mode: str, level: float) -> None:
    with pytest.raises(ValueError, match="its levels go from"):
        plain(Image.new(mode, (2, 2), level), 3)


def test_two_pictures_of_floats_are_read_by_one_scale(tmp_path):
    for name, most in (("dark", 0.25), ("light", 1.0)):
        Image.fromarray(np.linspace(0, most, 16, dtype=np.float32).reshape(4, 4)).save(tmp_path / f"{name}.tif")
    found = {
        name: np.asarray(plain(open_picture((tmp_path / f"{name}.tif").open("rb")), 1)) for name in ("dark", "light")
    }
    assert found["dark"].max() == 64 and found["light"].max() == 255
    Image.fromarray(np.arange(16, dtype=np.int32).reshape(4, 4)).save(tmp_path / "wide.tif")
    Image.fromarray(np.full((4, 4), 99, np.float32)).save(tmp_path / "far.tif")
    assert "integers of 32 bits" in str(look(Folder(tmp_path), "wide.tif", thorough=False))
    assert "go from 99 to 99; expected 0 to 1" in str(look(Folder(tmp_path), "far.tif", thorough=False))


@pytest.mark.parametrize(
    ("bits", "color", "pixels", "clear", "levels"),
    [
        (16, 0, struct.pack(">2H", 30000, 100), struct.pack(">H", 100), [117, 255]),
        (8, 0, bytes([100, 7]), struct.pack(">H", 7), [100, 255]),
        (4, 0, bytes([0x17]), struct.pack(">H", 7), [17, 255]),
        (2, 0, bytes([0b01110000]), struct.pack(">H", 3), [85, 255]),
        (1, 0, bytes([0b01000000]), struct.pack(">H", 0), [255, 255]),
        (8, 2, bytes([9, 9, 9, 4, 5, 6]), struct.pack(">3H", 4, 5, 6), [9, 255]),
        (16, 2, struct.pack(">6H", *(1000,) * 3, *(50000,) * 3), struct.pack(">3H", *(50000,) * 3), [3, 255]),
    ],
)  # fmt: skip
def test_the_transparent_level_of_a_png_is_white_at_any_depth(bits, color, pixels, clear, levels):
    parts = {b"IHDR": struct.pack(">IIBBBBB", 2, 1, bits, color, 0, 0, 0), b"tRNS": clear,
             b"IDAT": zlib.compress(b"\0" + pixels), b"IEND": b""}  # fmt: skip
    chunks = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts.items())
    picture = open_picture(io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)))
    assert np.asarray(plain(picture, 3))[0, :, 0].tolist() == levels


def test_what_is_transparent_becomes_white():
    half = Image.fromarray(np.array([[[255, 0, 0, 255], [0, 0, 0, 0]]], np.uint8))
    assert read(half, "PNG").tolist() == [[[255, 0, 0], [255, 255, 255]]]
    grey = Image.fromarray(np.array([[[10, 255], [10, 0]]], np.uint8))
    assert grey.mode == "LA" and read(grey, "PNG", 1).tolist() == [[10, 255]]


def test_palettes_are_looked_up():
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 0, 10, 20, 30])
    picture.putdata([0, 1])
    assert read(picture, "PNG").tolist() == [[[0, 0, 0], [10, 20, 30]]]
    assert read(picture, "PNG", transparency=0).tolist() == [[[255, 255, 255], [10, 20, 30]]]


def test_cmyk_becomes_rgb():
    red = read(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    assert np.abs(red[4, 4].astype(int) - [255, 0, 0]).max() <= 6


def test_pictures_are_turned_upright():
    picture = Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the first row is the right side
    assert read(picture, "PNG", exif=exif).tolist() == [[[255, 0, 0]], [[0, 255, 0]], [[0, 0, 255]]]


def test_a_picture_of_one_pixel():
    preprocess = Preprocess((16, 16), 3, (0.5,) * 3, (0.5,) * 3, crop=0.875)
    assert (fit(Image.new("L", (1, 1), 77), preprocess) == 77).all()
    assert resized_crops(np.full((1, 22), 0.5), 1, 1, (0.08, 1.0)).tolist() == [[0, 0, 1, 1]]


# Preprocessing


def test_evaluation_keeps_the_middle():
    wide = Preprocess((224, 224), 3, (0,) * 3, (1,) * 3, crop=0.875)
    assert kept_box(512, 256, wide) == (144, 16, 368, 240)
    assert kept_box(100, 50, Preprocess((8, 8), 3, (0,) * 3, (1,) * 3, resize="stretch")) == (0, 0, 100, 50)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 512, 3), np.uint8))
    assert np.array_equal(fit(picture, wide), np.asarray(picture)[16:240, 144:368])


def test_a_large_jpeg_scaled_while_decoding_looks_the_same(tmp_path):
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8))
    coarse.resize((1200, 900), Image.Resampling.BICUBIC).save(tmp_path / "large.jpg", quality=95)
    preprocess = Preprocess((64, 64), 3, (0,) * 3, (1,) * 3, crop=0.875)
    with Image.open(tmp_path / "large.jpg") as picture:
        fast = fit(picture, preprocess).astype(int)
        assert picture.size == (300, 225)  # a quarter: an eighth would leave less than twice the pixels wanted
    with Image.open(tmp_path / "large.jpg") as picture:
        whole = fit(picture.convert("RGB"), preprocess).astype(int)
    assert np.abs(fast - whole).max() <= 3


def test_default_preprocess_measures_small_sets_and_knows_photographs(digits, photos):
    grey = default_preprocess(digits, 32, 1)
    pixels = digits.splits["train"].pictures.double() / 255
    assert grey.mean == pytest.approx((float(pixels.mean()),), abs=1e-4)
    assert grey.std == pytest.approx((float(pixels.std()),), abs=1e-3)
    assert grey.resize == "stretch" and grey.crop == 1 and grey.size == (32, 32)
    assert default_preprocess(digits, 32, 3).mean == grey.mean * 3
    photo = default_preprocess(open_data(str(photos), DataSettings()), (96, 64), 3)
    assert photo.mean == (0.485, 0.456, 0.406) and photo.crop == 0.875 and photo.size == (96, 64)
    assert Preprocess.from_json(json.loads(json.dumps(photo.to_json()))) == photo
    batch = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.allclose(grey.normalise(batch), (batch / 255 - grey.mean[0]) / grey.std[0], atol=1e-5)


# data check


def test_check_finds_duplicates_within_and_across_splits(photos, tmp_path):
    def put(split: str, label: str, name: str, source: str) -> None:
        (tmp_path / split / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / split / label / name).write_bytes((photos / source).read_bytes())

    for number in range(3):
        put("train", "ant", f"{number}.jpg", f"ant/{number}.jpg")
        put("train", "bee", f"{number}.jpg", f"bee/{number}.jpg")
    put("train", "ant", "again.jpg", "ant/0.jpg")
    put("train", "bee", "wrong.jpg", "ant/1.jpg")
    put("val", "ant", "leak.jpg", "ant/2.jpg")
    put("val", "bee", "5.jpg", "bee/5.jpg")
    (tmp_path / "train" / "ant" / "broken.jpg").write_bytes((photos / "cat/0.jpg").read_bytes()[:400])
    (tmp_path / "val" / "bee" / "empty.png").touch()
    data, result = check(str(tmp_path), DataSettings())
    assert not result.ok
    found = [({Path(key).name for key in d.keys}, d.splits, d.labels) for d in result.duplicates]
    assert found == [
        ({"leak.jpg", "2.jpg"}, ("train", "validation"), ("ant",)),
        ({"1.jpg", "wrong.jpg"}, ("train",), ("ant", "bee")),
        ({"0.jpg", "again.jpg"}, ("train",), ("ant",)),
    ]
    assert {p.key for p in result.problems} == {"train/ant/broken.jpg", "val/bee/empty.png"}
    assert result.counts["train"] == {"ant": 4, "bee": 4} and result.heights == (90, 90, 90)
    json.dumps(result.to_json())
    draw_mosaic(data, default_preprocess(data, 32, 3), EVERYTHING, tmp_path / "mosaic.png")
    with Image.open(tmp_path / "mosaic.png") as mosaic:
        assert mosaic.width > 10 * 96 and len(mosaic.getcolors(10**6)) > 1000


def test_the_command_prints_one_json_value(capsys, tmp_path):
    mosaic = tmp_path / "m.png"
    words = ["digits", "--json", "--mosaic", mosaic, "--set", "augmentation.rotate=10"]
    assert orchard("data", "check", *words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] and answer["format"] == "named set" and answer["counts"]["test"]["3"] == 37
    assert answer["augmentation"]["rotate"] == 10 and (tmp_path / "m.png").stat().st_size > 1000


def test_a_missing_named_set_lists_what_to_put_where(tmp_path, monkeypatch):
    def no_network(self: object, *arguments: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(datasets.MNIST, "download", no_network)
    monkeypatch.setattr(datasets.CIFAR10, "download", no_network)
    with pytest.raises(OrchardError) as caught:
        open_data(f"mnist:{tmp_path}", DataSettings())
    message = str(caught.value)
    assert len(message.splitlines()) == 2 and str(tmp_path) in message
    for file, checksum in datasets.MNIST.resources:
        assert f"{file} ({named_sets._MNIST_SIZES[file]} bytes, md5 {checksum})" in message
    with pytest.raises(
        OrchardError, match=r"cifar-100-python.tar.gz \(169001437 bytes, md5 eb9058c3a382ffc7106e4002c42a8d85"
    ):
        open_data(f"cifar100:{tmp_path}", DataSettings())
