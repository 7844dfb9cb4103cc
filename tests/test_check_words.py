"""`orchard data check` on pictures with captions and on text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import orchard
from PIL import Image

from orchard.data.captions import CaptionSettings, write_row
from orchard.data.check_text import check_captions, check_text, kind_of
from orchard.data.contracts import DataSettings
from orchard.errors import UsageError


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty pictures with captions, one picture twice, one that is damaged and one caption that is empty."""
    root = tmp_path / "set"
    root.mkdir()
    lines = []
    for number in range(20):
        picture(number).save(root / f"{number}.png")
        lines.append(f"{number}.png\ta picture, number {number % 19}")
    (root / "19.png").write_bytes((root / "3.png").read_bytes())
    (root / "bad.png").write_bytes((root / "0.png").read_bytes()[:60])
    lines += ["bad.png\tnobody sees it", "5.png\t "]
    (root / "captions.txt").write_text("\n".join(lines) + "\n")
    return root


def test_captions_are_counted_and_what_is_wrong_is_said(folder: Path) -> None:
    _, found = check_captions(str(folder), CaptionSettings())
    assert sum(split["pictures"] for split in found.counts.values()) == 20 and not found.ok
    assert found.lengths == (19, 19, 20) and "," in found.characters and found.widths == (12, 12, 12)
    assert found.repeated == {"a picture, number 0": 2}
    assert found.duplicates is not None
    assert [{Path(key).name for key in group} for group in found.duplicates] == [{"3.png", "19.png"}]
    said = " ".join(f"{problem.key} {problem.what}" for problem in found.problems)
    assert "bad.png" in said and "line 22 the caption is empty" in said
    json.dumps(found.to_json())


def test_text_is_counted(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("one line\nand another\n")
    (tmp_path / "test.txt").write_text("été")
    (tmp_path / "valid.txt").write_text("line\n")
    found = check_text(str(tmp_path), DataSettings())
    assert found.counts["train"] == {"documents": 1, "lines": 2, "characters": 21, "bytes": 21}
    assert found.counts["test"] == {"documents": 1, "lines": 1, "characters": 3, "bytes": 5}
    assert found.unlearned == "é" and found.format == "text folder"


def test_what_a_source_is(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "rows.train.tsv"
    table.write_text("".join(write_row(str(n), f"text {n}", picture(n)) for n in range(12)))
    (tmp_path / "labels.tsv").write_text("path\tlabel\n0.png\tant\n")
    (tmp_path / "labels.txt").write_text("0.png ant\n")
    (tmp_path / "book.txt").write_text("Once upon a time\n")
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt").write_text("Once")
    expected = {
        folder: "captions", folder / "captions.txt": "captions", table: "captions",
        tmp_path / "labels.tsv": "pictures", tmp_path / "labels.txt": "pictures",
        tmp_path / "book.txt": "text", tmp_path / "books": "text", tmp_path / "rows.*.tsv": "captions",
    }  # fmt: skip
    for source, kind in expected.items():
        assert kind_of(str(source), DataSettings(), None) == kind, source
    assert (
        kind_of("digits", DataSettings(), None) == "pictures" and kind_of("shakespeare", DataSettings(), None) == "text"
    )
    assert kind_of("digits", DataSettings(), "text-to-image") == "captions"


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mosaic = tmp_path / "m.png"
    assert command("check", str(folder), "--mosaic", str(mosaic), "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["kind"] == "captions" and answer["format"] == "caption folder" and len(answer["captions_drawn"]) == 12
    with Image.open(mosaic) as drawn:
        assert drawn.width > 4 * 96
    assert command("check", str(folder)) == 0
    said = " ".join(capsys.readouterr().out.split())  # lines break where the terminal ends
    assert "caption folder, because" in said and "1 x caption of several pictures" in said
    (tmp_path / "book.txt").write_text("Once upon a time there was a text.\n" * 20)
    assert command("check", str(tmp_path / "book.txt")) == 0
    assert "text file, because" in capsys.readouterr().out
    assert command("check", str(tmp_path / "book.txt"), "--mosaic", str(mosaic)) == UsageError.exit_code


def command(*words: str) -> int:
    return orchard("data", *words)
