"""Training CLIP on pictures with captions: digits with wordings, and a small TSV of a person's own."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from orchard.app.train import train
from orchard.data.captions import write_row
from orchard.data.settings import CaptionSource
from orchard.data.tokenizers import load_tokenizer
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load
from orchard.tasks.zero_shot_image_classification.job import evaluate_loaded
from orchard.tasks.zero_shot_image_classification.matcher import load_matcher
from orchard.training.loop import Trainer

SMALL: dict[str, Any] = {
    "architecture.vision_width": 16,
    "architecture.vision_depth": 1,
    "architecture.vision_heads": 2,
    "architecture.text_width": 16,
    "architecture.text_depth": 1,
    "architecture.text_heads": 2,
    "architecture.width": 16,
    "text.tokenizer": "bpe",
    "text.vocabulary": 300,
    "batch_size": 64,
    "max_steps": 8,
    "log_every": 4,
    "ema": 0.9,
    "augmentation.shift": 0.1,
    "checkpoint_minutes": 0,
    "checkpoint_steps": 1,
}
COLORS = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (30, 60, 220), "yellow": (230, 210, 40)}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Squares of one colour in files by split, each with a caption that is its colour's alone."""
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    for split, count in (("train", 48), ("val", 8), ("test", 8)):
        lines = []
        for number in range(count):
            name = list(COLORS)[number % 4]
            pixels = np.clip(rng.normal(COLORS[name], 12, (32, 32, 3)), 0, 255).astype(np.uint8)
            lines.append(write_row(f"{split}{number}", f"a {name} square", Image.fromarray(pixels)))
        (folder / f"squares.{split}.tsv").write_text("".join(lines))
    return str(folder / "squares.*.tsv")


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clip") / "run"
    train("clip_nano", "digits", out, **SMALL)
    return out


@pytest.fixture(scope="module")
def squares_run(table: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("squares_run") / "run"
    changes = {"text.tokenizer": "characters", "batch_size": 16, "max_steps": 60, "ema": None, "optimizer.lr": 3e-3}
    changes |= {"epochs": 20, "image_size": 16, "architecture.patch": 8, "checkpoint_steps": None}
    train("clip_tiny", table, out, **{**SMALL, **changes})
    return out


class Page(HTMLParser):
    """Every tag that is opened is closed, and nothing is fetched."""

    EMPTY = ("meta", "img", "br", "link", "rect", "circle", "path", "line", "image")

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not (dict(attrs).get("src") or dict(attrs).get("href") or "data:").startswith(("http", "/"))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


def test_a_run_of_a_named_set_is_whole(digits_run: Path) -> None:
    metrics = json.loads((digits_run / "metrics.json").read_text())
    assert metrics["steps"] == 8 and metrics["task"] == "zero-shot-image-classification"
    for split in ("validation", "test"):
        assert 0 < metrics[split]["mean_reciprocal_rank"] <= 1
    assert metrics["validation"]["text_to_image_recall_at_10"] >= metrics["validation"]["text_to_image_recall_at_1"]
    loaded = load(digits_run)
    tokenizer = load_tokenizer(digits_run / "model" / "text_tokenizer")
    assert loaded.model.config.vocabulary == tokenizer.vocabulary + 2 <= 302
    assert loaded.facts["templates"][0] == "a handwritten {}"
    text = (digits_run / "report.html").read_text()
    Page(text)
    assert "From text to pictures" in text and "the digit" in text and text.count("<image ") == 12


def test_killed_and_started_again_ends_in_the_same_bits(
    digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def break_off(self: Trainer, parts: list[Any]) -> None:
        if self.state.step == 5:
            raise KeyboardInterrupt
        step(self, parts)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "step", break_off)
        train("clip_nano", "digits", tmp_path / "run", **SMALL)
    train("clip_nano", "digits", tmp_path / "run", **SMALL)
    expected, found = (load_file(run / "model" / "model.safetensors") for run in (digits_run, tmp_path / "run"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_colours_find_their_words(squares_run: Path, table: str) -> None:
    metrics = json.loads((squares_run / "metrics.json").read_text())
    assert metrics["data"] == "squares"
    assert metrics["test"]["image_to_text_recall_at_1"] == 1
    again = evaluate_loaded(load(squares_run), table, "test", CaptionSource(source=table))
    assert again.pop("count") > 0
    assert again == pytest.approx(metrics["test"], abs=1e-5)
    matcher = load_matcher(squares_run)
    squares = torch.stack([torch.tensor(color, dtype=torch.uint8) for color in COLORS.values()])
    found = matcher.rank_pictures(squares[:, :, None, None].expand(-1, -1, 40, 40), "a blue square")
    assert found.order[0] == list(COLORS).index("blue")


def test_going_on_keeps_the_tokenizer_and_may_change_the_picture_size(
    squares_run: Path, table: str, tmp_path: Path
) -> None:
    changes = {"start_from": str(squares_run), "image_size": 24, "max_steps": 2, "batch_size": 16}
    train("clip_tiny", table, tmp_path / "run", **changes)
    old, new = load(squares_run), load(tmp_path / "run")
    assert new.pictures.size == (24, 24) and new.pictures.mean == old.pictures.mean
    words = [run / "model" / "text_tokenizer" / "text.json" for run in (squares_run, tmp_path / "run")]
    assert words[0].read_bytes() == words[1].read_bytes()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"accumulate": 2}, "stays whole: accumulate, devices and nodes must be 1"),
        ({"batch_size": 1}, "batch_size must be 2 or more"),
        ({"augmentation.mixup": 0.2}, "'augmentation.mixup' is for image-classification; clip_nano"),
        ({"text.tokenizer": "bpe", "text.files": ["vocab.json"]}, "text.files names 1 files"),
        ({"architecture.patch": 9}, "does not divide into cells of 9"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        train("clip_nano", "digits", tmp_path / "run", **{**SMALL, **changes})


def test_other_splits_and_models_are_refused(squares_run: Path, table: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no dev split; it has train, validation, test"):
        evaluate_loaded(load(squares_run), table, "dev", CaptionSource(source=table))
    with pytest.raises(UsageError, match="holds a clip_tiny, not a clip_nano"):
        train("clip_nano", "digits", tmp_path / "run", start_from=str(squares_run))
    words = squares_run / "model" / "text_tokenizer"
    words.rename(words.with_name("elsewhere"))
    try:
        with pytest.raises(OrchardError, match="has no text_tokenizer"):
            load_matcher(squares_run)
    finally:
        words.with_name("elsewhere").rename(words)
