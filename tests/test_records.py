"""What a run knows of its records: broken ones are found early, mended ones pass, those learned from are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from orchard.app.evaluate import evaluate
from orchard.app.train import train
from orchard.data.digests import digests_of, read_digests
from orchard.data.settings import DataSettings
from orchard.data.sources import open_data
from orchard.data.text import open_text
from orchard.errors import OrchardError
from orchard.tasks.image_classification.job import Job

SMALL = {"epochs": 1, "batch_size": 8, "threads": 1, "image_size": 32}


def draw(place: Path, count: int, seed: int = 0) -> None:
    place.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng([seed, number, len(place.name)]).integers(0, 256, (70, 70, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of ten to learn from, and two of each to ask about."""
    for seed, (split, count) in enumerate({"train": 10, "val": 2, "test": 2}.items()):
        for label in ("cat", "bird"):
            draw(tmp_path / "set" / split / label, count, seed)
    return tmp_path / "set"


def break_in_the_middle(path: Path) -> bytes:
    """Pixels that are no more, behind a header and before an end that are."""
    good = path.read_bytes()
    path.write_bytes(good[:200] + bytes(len(good) - 400) + good[-200:])
    return good


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_a_broken_picture_of_the_test_is_found_before_the_first_step(pictures: Path, tmp_path: Path) -> None:
    for split in ("val", "test"):
        place = pictures / split / "cat" / "1.png"
        good = break_in_the_middle(place)
        with pytest.raises(OrchardError, match=rf"1 of 4 {split}\w* pictures cannot be read: .*{split}/cat/1\.png"):
            train("lenet5", str(pictures), tmp_path / "run", **SMALL)
        assert not (tmp_path / "run").exists()  # nothing was begun
        place.write_bytes(good)


def test_the_model_is_there_before_it_is_judged_and_a_mended_record_passes(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"

    def fail(*_: object) -> None:
        raise OrchardError("the test cannot be read")

    with monkeypatch.context() as patch:
        patch.setattr("orchard.tasks.image_classification.objective.ImageClassification.final_metrics", fail)
        with pytest.raises(OrchardError, match="the test cannot be read"):
            train("lenet5", str(pictures), run, **SMALL)
    assert (run / "model" / "model.safetensors").exists()
    draw(tmp_path / "mended", 1, seed=9)
    for place in ("train/cat/3.png", "test/bird/0.png"):
        (pictures / place).write_bytes((tmp_path / "mended" / "0.png").read_bytes())
    (pictures / "train" / "bird" / "7.png").write_bytes(b"")
    capsys.readouterr()
    metrics = train("lenet5", str(pictures), run, **SMALL, **{"data.bad_records": "skip"})
    assert "2 of 20 training records have been mended or left out since" in said(capsys)
    assert metrics["test"]["majority_accuracy"] == 0.5
    assert json.loads((run / "run.json").read_text())["data"]["counts"] == {"train": 19, "validation": 4, "test": 4}


def test_other_data_is_refused_as_before(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Job, "report", lambda *_: (_ for _ in ()).throw(OrchardError("no report")))
        with pytest.raises(OrchardError, match="no report"):
            train("lenet5", str(pictures), run, **SMALL)
    (pictures / "train" / "cat" / "new.png").write_bytes((pictures / "test" / "cat" / "0.png").read_bytes())
    with pytest.raises(OrchardError, match="has changed since"):
        train("lenet5", str(pictures), run, **SMALL)


def test_records_that_were_learned_from_are_named(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "test" / "cat" / "copy.png").write_bytes((pictures / "train" / "cat" / "0.png").read_bytes())
    for file in (pictures / "val" / "cat").iterdir():
        file.unlink()
    (pictures / "val" / "cat").rmdir()
    train("lenet5", str(pictures), tmp_path / "run", **SMALL)
    heard = said(capsys)
    assert "1 of 5 test records are among the training records too" in heard
    assert "the validation split has no picture of cat" in heard
    assert len(read_digests(tmp_path / "run")["train"]) == 20
    draw(tmp_path / "own" / "cat", 3, seed=7)
    assert evaluate(tmp_path / "run", str(tmp_path / "own"))["count"] == 3
    assert "has learned from" not in said(capsys)
    (tmp_path / "own" / "cat" / "again.png").write_bytes((pictures / "train" / "cat" / "4.png").read_bytes())
    assert evaluate(tmp_path / "run", str(tmp_path / "own"))["count"] == 4
    assert "the model has learned from 1 of these records" in said(capsys)
    (pictures / "test" / "bird" / "seen.png").write_bytes((pictures / "train" / "bird" / "1.png").read_bytes())
    (pictures / "train" / "bird" / "1.png").unlink()
    train("lenet5", str(pictures), tmp_path / "more", start_from=str(tmp_path / "run"), **SMALL)
    assert f"{tmp_path / 'run'} has learned from 2 of 6 test records" in said(capsys)


def test_digests_know_content_wherever_it_lies(pictures: Path, tmp_path: Path) -> None:
    data = open_data(str(pictures), DataSettings())
    rows = [f"{name},{'cat' if 'cat' in name else 'bird'},train" for name in data.splits["train"].names]  # type: ignore[attr-defined]
    (pictures / "t.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    table = open_data(str(pictures / "t.csv"), DataSettings()).splits
    both = np.concatenate([digests_of(table["train"]), digests_of(table["validation"])])
    assert sorted(both) == sorted(digests_of(data.splits["train"])) and len(set(both.tolist())) == 20
    (tmp_path / "a.txt").write_text("\n".join(f"a line of some length, number {n}" for n in range(40)))
    text = digests_of(open_text(str(tmp_path / "a.txt"), DataSettings()).splits["train"])
    assert 30 <= len(text) <= 34 and text.dtype == np.int64
    assert not len(digests_of(torch.zeros(3)))
