"""Data that is not right: what is said of it, in one or two lines, and what is left when it is skipped."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchard.data import AugmentSettings, DataSettings, Loader, default_preprocess, open_data
from orchard.data.captions import CaptionSettings, cache, read_prompts
from orchard.data.pairs.lines import index_lines
from orchard.data.text import read_text
from orchard.errors import OrchardError, UsageError
from orchard.weights.foreign import read_checkpoint

SKIP = DataSettings(bad_records="skip")


@pytest.fixture
def root(tmp_path) -> Path:
    """Two classes of six pictures, 80x70."""
    for label, seed in (("ant", 0), ("bee", 1)):
        (tmp_path / label).mkdir()
        for number in range(6):
            pixels = np.random.default_rng([seed, number]).integers(0, 256, (70, 80, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.jpg")
    return tmp_path


def refused(source: Path | str, settings: DataSettings | None = None, error: type[OrchardError] = OrchardError) -> str:
    """The message with which a set is refused, which has one or two lines."""
    with pytest.raises(error) as caught:
        open_data(str(source), settings or DataSettings())
    message = str(caught.value)
    assert 1 <= len(message.splitlines()) <= 2
    return message


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_nothing_of_that_name():
    assert "did you mean digits" in refused("digit", error=UsageError)
    message = refused("no/such/folder", error=UsageError)
    assert "no/such/folder" in message and "fashion-mnist" in message


def test_a_file_that_is_no_set(root):
    message = refused(root / "ant" / "0.jpg", error=UsageError)
    assert "0.jpg" in message and "expected a folder" in message


def test_a_named_set_without_its_folder():
    assert "mnist:FOLDER" in refused("mnist", error=UsageError)


def test_a_folder_without_pictures(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    message = refused(tmp_path)
    assert str(tmp_path) in message and "cat/1.jpg" in message


def test_pictures_without_class_folders(root):
    assert "no class folder" in refused(root / "ant")


def test_the_files_of_a_named_set_are_known(tmp_path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"x")
    assert "named set" in refused(tmp_path)


def test_an_empty_class(root):
    (root / "cat").mkdir()
    message = refused(root)
    assert "cat" in message and "data.bad_records=skip" in message
    data = open_data(str(root), SKIP)
    assert data.classes == ("ant", "bee") and [p.key for p in data.problems] == ["cat"]


def test_one_class_only(root):
    for file in (root / "bee").iterdir():
        file.unlink()
    (root / "bee").rmdir()
    assert "one class only, 'ant'" in refused(root)


def test_too_few_pictures_to_split(tmp_path, root):
    for label in ("ant", "bee"):
        (tmp_path / "few" / label).mkdir(parents=True)
        (tmp_path / "few" / label / "0.jpg").write_bytes((root / label / "0.jpg").read_bytes())
    assert "too few" in refused(tmp_path / "few")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.jpg", b"", "empty file"),
        ("text.jpg", b"this is no picture", "not a picture"),
        ("vector.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        ("bomb.png", png_header(30_000, 30_000), "more than the 100 million"),
        ("large.png", png_header(12_000, 9_000), "12000x9000 pixels are more than the 100 million"),
    ],
)
def test_unreadable_pictures_are_named(root, name, content, said):
    (root / "bee" / name).write_bytes(content)
    message = refused(root)
    assert f"bee/{name}" in message and said in message and "data.bad_records=skip" in message
    data = open_data(str(root), SKIP)
    assert [p.key for p in data.problems] == [f"bee/{name}"] and said in data.problems[0].what
    assert sum(len(split) for split in data.splits.values()) == 12


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "gif", "tif"])
def test_truncated_pictures_are_found_before_training(root, ending):
    whole = root / "bee" / f"whole.{ending}"
    Image.fromarray(np.random.default_rng(9).integers(0, 256, (70, 80, 3), np.uint8)).save(whole)
    assert open_data(str(root), DataSettings())
    content = whole.read_bytes()
    (root / "bee" / f"cut.{ending}").write_bytes(content[: len(content) * 2 // 3])
    assert f"bee/cut.{ending}" in refused(root)


def test_a_huge_header_takes_no_memory(root):
    (root / "bee" / "bomb.png").write_bytes(png_header(30_000, 30_000))
    open_data(str(root), SKIP)  # what is loaded the first time is not counted
    tracemalloc.start()
    try:
        open_data(str(root), SKIP)
        assert tracemalloc.get_traced_memory()[1] < 20e6  # the pixels would be 2.7e9
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_breaks_during_training_is_named(root, workers):
    data = open_data(str(root), DataSettings(test_fraction=0))
    preprocess = default_preprocess(data, 32, 3)
    split = data.splits["train"]
    loader = Loader(split, preprocess, AugmentSettings(), batch_size=len(split), seed=0, workers=workers)
    (root / split.names[3]).unlink()
    with pytest.raises(OrchardError) as caught:
        list(loader.batches(0))
    assert str(caught.value) == f"{root / split.names[3]}: there is no such file"


def test_odd_pictures_are_read_right(root):
    odd = root / "bee"
    Image.fromarray(np.full((70, 80), 40000, np.uint16)).save(odd / "deep.png")
    Image.new("P", (80, 70)).save(odd / "palette.gif")
    Image.new("RGBA", (80, 70), (0, 0, 0, 0)).save(odd / "clear.png")
    Image.new("CMYK", (80, 70)).save(odd / "print.jpg")
    Image.new("1", (1, 1), 1).save(odd / "dot.png")
    data = open_data(str(root), DataSettings(bad_records="skip", test_fraction=0))
    assert not data.problems
    preprocess = default_preprocess(data, 32, 3)
    for split in data.splits.values():
        batch = next(Loader(split, preprocess, None, batch_size=64, seed=0, workers=0).batches(0))
        pixels = (
            batch.images * np.array(preprocess.std).reshape(3, 1, 1) + np.array(preprocess.mean).reshape(3, 1, 1)
        ) * 255
        for place in range(len(split)):
            level = {"deep.png": 156, "palette.gif": 0, "clear.png": 255, "dot.png": 255, "print.jpg": 255}
            if (name := Path(split.key(place)).name) in level:
                assert np.abs(pixels[place].numpy() - level[name]).max() < 1.5


def test_a_class_that_training_never_saw(root, tmp_path):
    for split, labels in (("train", ("ant", "bee")), ("val", ("ant", "bee", "cow"))):
        for label in labels:
            (tmp_path / "set" / split / label).mkdir(parents=True)
            source = root / ("ant" if label == "cow" else label)
            for number in range(2):
                (tmp_path / "set" / split / label / f"{number}.jpg").write_bytes(
                    (source / f"{number}.jpg").read_bytes()
                )
    message = refused(tmp_path / "set")
    assert "val/cow/0.jpg" in message and "'cow'" in message and "training never sees" in message
    data = open_data(str(tmp_path / "set"), SKIP)
    assert len(data.splits["validation"]) == 4 and len(data.problems) == 2


def test_splits_without_training_pictures(root, tmp_path):
    (tmp_path / "set").mkdir()
    (root / "ant").rename(tmp_path / "set" / "ant")
    (tmp_path / "set").rename(root / "test")
    for file in (root / "bee").iterdir():
        file.unlink()
    (root / "bee").rmdir()
    assert "only test; expected class folders in train" in refused(root)


# Archives


def test_damaged_and_hostile_archives(root, tmp_path, monkeypatch):
    monkeypatch.setattr("orchard.data.files._MAX_UNPACKED", 2**20)
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w") as packed:
        for file in sorted(root.rglob("*.jpg")):
            packed.write(file, file.relative_to(root).as_posix())
        packed.writestr("bee/zeros.bmp", bytes(2**20 + 1), zipfile.ZIP_DEFLATED)
        packed.writestr("../../outside/evil.jpg", b"x")
    message = refused(whole)
    assert "bee/zeros.bmp: it unpacks to more than 1 MB" in message and "evil" not in message
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:2000])
    assert "damaged zip archive" in refused(tmp_path / "cut.zip")
    assert not (tmp_path.parent / "outside").exists()


def test_bombs_and_odd_members_of_archives_cost_nothing(root, tmp_path):
    bombs = tmp_path / "bombs.zip"
    with zipfile.ZipFile(bombs, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(root.rglob("*.jpg")):
            packed.write(file, file.relative_to(root).as_posix())
        packed.writestr("bee/zeros.bmp", bytes(2**23))
    assert "bee/zeros.bmp: it unpacks to 1,0" in refused(bombs)
    odd = tmp_path / "odd.zip"
    with zipfile.ZipFile(odd, "w", zipfile.ZIP_LZMA) as packed:
        for label in ("ant", "bee"):
            packed.writestr(f"{label}/0.jpg", (root / label / "0.jpg").read_bytes())
            packed.writestr(f"{label}/1.jpg", (root / label / "1.jpg").read_bytes())
    content = bytearray(odd.read_bytes())
    content[60:90] = bytes(range(30))  # in the first stream
    odd.write_bytes(bytes(content))
    assert "ant/0.jpg: " in refused(odd)
    said = set()
    for at in range(content.rindex(b"PK\x01\x02") + 4, len(content) - 1):  # of versions and places nobody has
        broken = content.copy()
        broken[at] ^= 0xFF
        odd.write_bytes(bytes(broken))
        try:
            open_data(str(odd), SKIP)
        except OrchardError as error:
            said.add(str(error).partition(": ")[0].replace(str(odd), "it"))
    assert "it is a damaged zip archive" in said


def test_a_name_twice_in_an_archive(root, tmp_path):
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as packed, pytest.warns(UserWarning, match="Duplicate name"):
        for label in ("ant", "bee", "bee"):
            packed.write(root / label / "0.jpg", f"{label}/0.jpg")
    assert "'bee/0.jpg' is in the archive twice" in refused(tmp_path / "twice.zip")


# Tables


def table(root: Path, content: str | bytes) -> Path:
    path = root / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


ROWS = "".join(f"{label}/{n}.jpg,{label}\n" for label in ("ant", "bee") for n in range(6))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("path,label\n", "no pictures"),
        ("path,kind\n" + ROWS, "no column named label or class or category in the header, which has path, kind"),
        ("picture,label\n" + ROWS, "no column named path or file or filename or image"),
        ("path,file,label\n", "path, file could all be the path"),
        (
            "path,label\n" + ROWS + "ant/0.jpg,a,b\n",
            "line 14: 3 fields, where the header has 2; text with commas in it stands",
        ),
        ("path,label\n" + ROWS + "ant/0.jpg\n", "line 14: 1 fields, where the header has 2"),
        ("path,label\n" + ROWS + "ant/0.jpg,\n", "line 14: the label is empty"),
        ("path,label\n" + ROWS + 'ant/0.jpg,"an"t\n', "line 14: "),
        ("path,label\n" + ROWS + "ant/0.jpg,bee\n", "line 14: 'ant/0.jpg' has label 'bee', and 'ant' further up"),
        ("path,label\n" + ROWS + "ant/9.jpg,ant\n", "ant/9.jpg: there is no such file"),
        (
            "path,label,split\n" + ROWS.replace("\n", ",train\n") + "ant/0.jpg,ant,tset\n",
            "line 14: split 'tset' is unknown",
        ),
        (("path,label\n" + ROWS).encode() + b"caf\xe9/0.jpg,caf\xe9\n", "line 14: not UTF-8 (byte 0xe9)"),
        (("path,label\n" + ROWS).encode("utf-16"), "line 1: not UTF-8"),
    ],
)
def test_tables_that_are_not_right(root, content, said):
    assert said in refused(table(root, content))


def test_a_file_listed_twice_counts_once(root):
    data = open_data(str(table(root, "path,label\n" + ROWS + "ant/0.jpg,ant\n")), DataSettings())
    assert sum(len(split) for split in data.splits.values()) == 12
    assert [(p.key, p.what) for p in data.problems] == [("ant/0.jpg", "listed again in line 14; the first line counts")]


def test_quoted_commas_are_part_of_the_text(root):
    (root / "ant" / "a, b.jpg").write_bytes((root / "ant" / "0.jpg").read_bytes())
    data = open_data(str(table(root, "path,label\n" + ROWS + '"ant/a, b.jpg",ant\n')), DataSettings())
    assert sum(len(split) for split in data.splits.values()) == 13 and not data.problems


# Named sets


def test_damaged_idx_files(tmp_path):
    good = bytes((0, 0, 8, 1)) + (10).to_bytes(4, "big") + bytes(10)
    for name in ("train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (tmp_path / name).write_bytes(gzip.compress(good))
    for name in ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"):
        (tmp_path / name).write_bytes(gzip.compress(good)[:-6])
    message = refused(f"mnist:{tmp_path}")
    assert "train-images-idx3-ubyte.gz is damaged" in message
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(good))
    assert "not an IDX file of bytes with 3 dimensions" in refused(f"mnist:{tmp_path}")


def test_idx_files_that_lie_or_swell(tmp_path):
    def idx(*lengths: int, content: int = 0) -> bytes:
        return bytes((0, 0, 8, len(lengths))) + struct.pack(f">{len(lengths)}I", *lengths) + bytes(content)

    for name in ("train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (tmp_path / name).write_bytes(gzip.compress(idx(10, content=10)))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(10, 28, 28, content=7840)))
    swollen = tmp_path / "train-images-idx3-ubyte.gz"
    tracemalloc.start()
    try:
        for content in (
            idx(10, 28, 28, content=2**26),
            idx(2**31, 2, 2),
            idx(0, 28, 28),
            idx(2**16, 2**16, 0xFFFFFFFF),
        ):
            swollen.write_bytes(gzip.compress(content, 1))
            tracemalloc.reset_peak()
            assert "train-images-idx3-ubyte.gz is damaged" in refused(f"mnist:{tmp_path}")
            assert tracemalloc.get_traced_memory()[1] < tracemalloc.get_traced_memory()[0] + 2e7
    finally:
        tracemalloc.stop()


def test_text_that_unpacks_out_of_all_proportion(tmp_path, monkeypatch):
    monkeypatch.setattr("orchard.packed._SURELY_FINE", 2**16)
    bomb = tmp_path / "a.txt.gz"
    bomb.write_bytes(gzip.compress(b"a" * 10**6))
    for read in (read_text, lambda path: read_prompts(path, CaptionSettings()), cache.unpacked, index_lines):
        with pytest.raises(OrchardError, match=r"a\.txt\.gz is damaged.* unpacks to more than 200 times its size"):
            read(bomb)
    os.mkfifo(tmp_path / "b.txt")
    with pytest.raises(OrchardError, match="it is no regular file"):
        read_text(tmp_path / "b.txt")


def test_arrays_that_are_larger_than_their_file(tmp_path, monkeypatch):
    path, header = tmp_path / "w.npz", io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("w.npy", header.getvalue() + bytes(64))
    with pytest.raises(OrchardError, match="the file is too short"):
        read_checkpoint(path)
    np.savez_compressed(path, w=np.zeros(10**6, np.float32))
    assert read_checkpoint(path)["w"].shape == (10**6,)
    monkeypatch.setattr("orchard.packed._SURELY_FINE", 2**16)
    with pytest.raises(OrchardError, match="would unpack to 4,000,128"):
        read_checkpoint(path)


def test_a_batch_that_cannot_be_dealt_out():
    data = open_data("digits", DataSettings())
    with pytest.raises(UsageError, match="64 cannot be divided equally among 3"):
        Loader(
            data.splits["train"], default_preprocess(data, 8, 1), AugmentSettings(), batch_size=64, seed=0, workers=0,
            rank=0, world=3,
        )  # fmt: skip
