"""The report of a run: one file that opens alone, says what the run's files say, and survives odd runs."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from orchard.data import Preprocess
from orchard.data.splits import ArraySplit
from orchard.models import create_model
from orchard.tasks.image_classification import ImageClassification, Predictions
from orchard.training.report import write_report
from orchard.training.run import LOG_COLUMNS, RunFolder

DIGITS = tuple("0123456789")


def digits(count=200):
    scans = load_digits()
    pictures = (scans.images[:count, None] * 255 / 16).round().astype(np.uint8)
    return ArraySplit("digits/test", pictures, scans.target[:count], np.arange(count))


def said(split, classes, mistakes, seed=0):
    """Predictions with exactly so many mistakes, of all degrees of confidence."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 0.5, (len(split), classes))
    target = split.labels.copy()
    wrong = rng.choice(len(split), mistakes, replace=False)
    target[wrong] = (target[wrong] + rng.integers(1, classes, mistakes)) % classes
    logits[np.arange(len(split)), target] += rng.uniform(3, 8, len(split))
    return Predictions(
        torch.tensor(logits, dtype=torch.float32), torch.from_numpy(split.labels), torch.arange(len(split))
    )


def write_run(folder, task, predictions, *, judged="test", epochs=12, model="vit_nano", problems=()):
    """The files that a training leaves behind."""
    folder.mkdir(parents=True)
    settings = {
        "model": {"value": model, "origin": "command"},
        "data.source": {"value": "digits", "origin": "command"},
        "epochs": {"value": epochs, "origin": "recipe vit_nano on digits"},
        "optimizer.lr": {"value": 0.002, "origin": "command"},
        "batch_size": {"value": 64, "origin": "default"},
    }
    facts = {
        "requested": {}, "seed": 7, "model": model, "parameters": 304202, "started": "2026-11-21T10:00:00+00:00",
        "versions": {"python": "3.12.1", "torch": "2.15.0"},
        "hardware": {"cpu": "Some CPU", "cores": 2, "threads": 2, "memory_gb": 8.2, "gpus": []},
        "data": {"name": "digits", "source": "digits", "format": "named set", "classes": list(task.classes),
                 "counts": {"train": 1257, "validation": 180, "test": 360}, "fingerprint": "ab" * 32,
                 "problems": list(problems)},
    }  # fmt: skip
    figures = task.score(predictions)
    metrics = {
        "model": model, "data": "digits", "parameters": 304202, "macs": 20.1e6, "size_bytes": 1216808,
        "steps": epochs * 20, "epochs": epochs, "best_step": 200, "stopped": "", "seconds": 83.2,
        "pictures_per_second": 181.3, "validation": figures, judged: figures,
    }  # fmt: skip
    for name, value in (("settings", settings), ("run", facts), ("metrics", metrics)):
        (folder / f"{name}.json").write_text(json.dumps(value))
    lines = [",".join(LOG_COLUMNS)]
    for step in range(10, epochs * 20 + 1, 10):
        loss, accuracy = 2.3 * 0.985**step + 0.02, 1 - 0.9 * 0.985**step
        lines.append(
            f"{step},{step / 20:g},train,{loss:.4f},{accuracy:.4f},,{2e-3 * (1 - step / 300):.6g},1.5,{step / 3}"
        )
        if step % 20 == 0:
            lines.append(
                f"{step},{step / 20:g},validation,{loss * 1.2:.4f},{accuracy - 0.01:.4f},{accuracy:.4f},,,{step / 3}"
            )
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    return RunFolder(folder)


def preprocess(size=32, channels=1):
    return Preprocess((size, size), channels, (0.3,) * channels, (0.4,) * channels, squash=True)


@pytest.fixture
def report(tmp_path):
    """Write the report of a run on digits and return its text."""

    def make(*, mistakes=9, model=None, split=None, classes=DIGITS, predictions=None, **details):
        task = ImageClassification(classes)
        split = split or digits()
        predictions = predictions or said(split, len(classes), mistakes)
        run = write_run(tmp_path / "run", task, predictions, **details)
        model = model or create_model("vit_nano", num_classes=len(classes))
        path = write_report(
            run,
            task=task,
            split=split,
            preprocess=preprocess(model.config.image_size, model.config.in_channels),
            predictions=predictions,
            model=model,
        )
        assert path == tmp_path / "run" / "report.html"
        return path.read_text()

    return make


class Structure(HTMLParser):
    """Checks that elements nest, and gathers what a reader and a browser would need."""

    VOID = ("meta", "img", "br", "line", "rect", "circle", "path")

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.links, self.rows = [], [], [], 0
        self.feed(text)
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        table = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(table)
        self.links += [table[key] for key in ("href", "src") if key in table]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        assert self.open.pop() == tag


def words(text):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))


def test_report_stands_alone_and_nests(report):
    text = report()
    page = Structure(text)
    assert all(link.startswith(("data:image/", "#")) for link in page.links)
    assert "<script" not in text and "url(" not in text and "@import" not in text
    assert all(image.get("alt") for image in page.images)
    assert len(text) < 2_000_000


def test_report_says_the_figures(report):
    text = words(report(mistakes=9))
    assert "Right about 191 of 200 test pictures after 12 epochs in 83.2 s" in text
    assert "95.5 %" in text  # 191 / 200
    assert (
        "95 % interval 91.7 % to 97.6 %" in text
    )  # Wilson's, by hand: (p + z²/2n ± z·sqrt(pq/n + z²/4n²)) / (1 + z²/n)
    assert "The weights of step 200 of 240" in text and "best: 10" in text
    for fact in ("Some CPU", "ab" * 32, "304,202", "20.1 M", "1.22 MB", "2026-11-21", "train 1,257"):
        assert fact in text
    assert "orchard train vit_nano --data digits --set optimizer.lr=0.002" in text
    assert "1 settings at their defaults" in text or "1 setting at its default" in text
