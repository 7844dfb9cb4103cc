"""`orchard data check PATH` without a model: every kind of data is known by what is in its files."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import orchard
from PIL import Image

from orchard.data.kinds import kind_by_look


def pictures(folder: Path, count: int = 12) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng([number, len(folder.name)]).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return folder


def voc(root: Path) -> Path:
    pictures(root / "JPEGImages")
    (root / "Annotations").mkdir()
    for number in range(12):
        corners = {"xmin": 1, "ymin": 1, "xmax": 20, "ymax": 20}
        edges = "".join(f"<{edge}>{n}</{edge}>" for edge, n in corners.items())
        (root / "Annotations" / f"{number}.xml").write_text(
            f"<annotation><object><name>cat</name><bndbox>{edges}</bndbox></object></annotation>"
        )
    return root


def yolo(root: Path) -> Path:
    pictures(root / "images")
    (root / "labels").mkdir()
    for number in range(12):
        (root / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.2 0.2\n" if number else "")
    return root


def coco(root: Path) -> Path:
    pictures(root / "images")
    numbers = range(12)
    table = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 40, "height": 30} for n in numbers],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 9, 9]} for n in numbers],
    }
    (root / "instances.json").write_text(json.dumps(table))
    return root


def zipped(root: Path) -> Path:
    folder = voc(root / "voc")
    with zipfile.ZipFile(root / "voc.zip", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(root))
    return root / "voc.zip"


def parallel(root: Path) -> Path:
    root.mkdir()
    for language in ("de", "en"):
        (root / f"train.{language}").write_text("".join(f"{language} sentence {n}\n" for n in range(40)))
    return root


def table_of(name: str, first: str, row: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        root.mkdir()
        (root / name).write_text(first + "".join(row.replace("#", str(n)) + "\n" for n in range(60)))
        return root / name

    return make


def captions(root: Path) -> Path:
    pictures(root)
    (root / "captions.txt").write_text("".join(f"{n}.jpg\tnumber {n}\n" for n in range(12)))
    return root


def classes(root: Path) -> Path:
    pictures(root / "images", 6)
    pictures(root / "labels", 6)  # classes may be called so
    return root


TRANSLATION = '{"translation": {"de": "ein Satz #", "en": "one sentence #"}}'
SOURCES = {
    "voc": (voc, "VOC"), "yolo": (yolo, "YOLO"), "coco": (coco, "COCO"), "zip": (zipped, "VOC"),
    "coco file": (lambda root: coco(root) / "instances.json", "COCO"),
    "parallel": (parallel, "parallel files"),
    "translations": (table_of("a.jsonl", "", TRANSLATION), "table"),
    "named columns": (table_of("a.csv", "source,target\n", "ein Satz #,one sentence #"), "table"),
    "column of text": (table_of("a.csv", "text\n", "some words of #"), "table of texts"),
    "lines of text": (table_of("a.jsonl", "", '{"text": "some words of #"}'), "table of texts"),
    "captions": (captions, "caption folder"), "classes": (classes, "image folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_every_kind_is_recognised(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, expected = SOURCES[name]
    assert orchard("data", "check", make(tmp_path / "set"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["format"] == expected


def test_what_only_looks_alike_is_not_taken_for_it(tmp_path: Path) -> None:
    spoken = pictures(tmp_path / "spoken" / "images", 2).parent
    (spoken / "labels").mkdir()
    (spoken / "labels" / "0.txt").write_text("a caption, no box\n")
    code = tmp_path / "code"
    code.mkdir()
    for name in ("a.cc", "a.hh", "b.jpg", "b.png", "note.json"):
        (code / name).write_text("[" * 5000)
    (tmp_path / "bad.jsonl").write_text("[]")
    (tmp_path / "bad.tsv.gz").write_bytes(b"\x1f\x8b no")
    (tmp_path / "two.tsv").write_text("ein Satz\tone sentence\n")
    for path in (spoken, code, tmp_path / "bad.jsonl", tmp_path / "bad.tsv.gz", tmp_path / "two.tsv", tmp_path / "no"):
        assert kind_by_look(str(path)) is None, path
