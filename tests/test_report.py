"""The report of a run: one file that opens alone, says what the run's files say, and survives odd runs."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from orchard.cli.train import show_figures
from orchard.data import Preprocess
from orchard.data.splits import ArraySplit
from orchard.errors import OrchardError
from orchard.models import create_model
from orchard.report import charts
from orchard.report.charts import Spot, spot_chart
from orchard.report.pictures import _last_maps
from orchard.report.run_page import _best
from orchard.tasks.image_classification.image_objective import Predictions
from orchard.tasks.image_classification.objective import ImageClassification
from orchard.tasks.image_classification.report import write_report
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


def write_run(folder, task, predictions, *, report_split="test", epochs=12, model="vit_nano", problems=()):
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
    figures = task.compute_metrics(predictions)
    metrics = {
        "model": model, "task": "image-classification", "data": "digits", "parameters": 304202,
        "macs": 20_100_000, "size_bytes": 1216808,
        "steps": epochs * 20, "epochs": epochs, "best_step": 200, "stopped": "", "seconds": 83.2,
        "pictures_per_second": 181.3, "validation": figures, report_split: figures,
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
    return Preprocess((size, size), channels, (0.3,) * channels, (0.4,) * channels, resize="stretch")


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
            objective=task,
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
    assert "Correct on 191 of 200 test images after 12 epochs in 83.2 s" in text
    assert "95.5 %" in text  # 191 / 200
    assert "95 % interval 91.7 % to 97.6 %" in text  # Wilson's, worked out by hand
    assert "The weights of step 200 of 240" in text and "best epoch: 10" in text
    for fact in ("Some CPU", "ab" * 32, "304,202", "20.1 M", "1.22 MB", "2026-11-21", "train 1,257"):
        assert fact in text
    assert "orchard train vit_nano --data digits --set optimizer.lr=0.002" in text
    assert "1 more at its default" in text


def test_mistakes_come_most_confident_first_with_their_records(report):
    split = digits()
    predictions = said(split, 10, 30)
    text = report(predictions=predictions)
    figure = r'class="wrongly">(\d)</span> ([\d.]+)\s%<br>true class <b>(\d)</b>.*?digits/test/(\d+)</span>'
    shown = re.findall(figure, text)
    assert len(shown) == 24  # of 30
    confidences = [float(confidence) for _, confidence, _, _ in shown]
    assert confidences == sorted(confidences, reverse=True)
    for predicted, confidence, truth, index in shown:
        chances = predictions.logits[int(index)].softmax(0)
        assert split.labels[int(index)] == int(truth) != int(predicted) == int(chances.argmax())
        assert float(confidence) == pytest.approx(100 * float(chances.max()), abs=0.051)


def test_confusion_and_class_table_count_right(report):
    split = digits()
    logits = torch.nn.functional.one_hot(torch.from_numpy(split.labels), 10).float() * 9
    eights = np.flatnonzero(split.labels == 8)
    logits[eights[:3]] = torch.nn.functional.one_hot(torch.tensor(1), 10).float() * 9
    text = report(predictions=Predictions(logits, torch.from_numpy(split.labels), torch.arange(200)))
    assert f"8 predicted as 1: 3 of {len(eights)}" in text
    assert text.count(" correct: ") == 10 and text.count(" predicted as ") - text.count("alt=") < 10
    ones = int((split.labels == 1).sum())
    row = re.search(r'<tr><th scope="row">1</th>(.*?)</tr>', text)[1]
    assert f"{100 * ones / (ones + 3):.1f}\xa0%" in row and "100.0\xa0%" in row  # precision, recall
    first = re.search(r'<tr><th scope="row">(\d)</th>', text)[1]
    assert first == "8"  # the weakest class comes first


def test_nothing_wrong_is_said_and_not_shown(report):
    text = words(report(mistakes=0))
    assert "There are none: every test image was classified correctly." in text
    assert "Most confused pairs" not in text
    assert "100.0 %" in text


def test_run_without_test_split_or_log(report, tmp_path):
    text = words(report(report_split="validation", epochs=0))
    assert "validation images" in text and "Validation accuracy" in text
    assert "The run's log has no metrics." in text


def test_names_cannot_break_the_page(report):
    classes = ("<script>alert(1)</script>", 'a"b', "a" * 200, *DIGITS[3:])
    text = report(classes=classes, problems=["<img src=x onerror=alert(1)>: unreadable"])
    assert "<script" not in text and "<img src=x" not in text
    Structure(text)


@pytest.mark.parametrize("count", [2, 3, 30, 100, 150])
def test_any_number_of_classes(report, count):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, count, 3000)
    labels[labels == 1] = 0  # a class nobody has a picture of
    split = ArraySplit("many/test", rng.integers(0, 255, (3000, 1, 8, 8), dtype=np.uint8), labels, np.arange(3000))
    predictions = Predictions(
        torch.from_numpy(rng.normal(size=(3000, count))).float(), torch.from_numpy(labels), torch.arange(3000)
    )
    text = report(classes=tuple(f"class {i}" for i in range(count)), split=split, predictions=predictions)
    Structure(text)
    assert len(text) < 2_000_000  # even where every class is predicted as every other
    assert ("Rows are true classes" in text) == (count <= 100)
    assert "Most confused pairs" in text
    assert ("Top-5 accuracy" in text) == (count > 5)


def test_convolutional_networks_show_maps_of_their_own_colour(report):
    text = report(model=create_model("lenet5", num_classes=10))
    assert "Feature maps of" in words(text)
    assert len(re.findall("<figcaption>channel ", text)) == 6 * 6


def test_attention_is_laid_over_the_picture(report):
    text = report()
    assert "Attention of the last block over" in words(text)
    assert len(re.findall("<figcaption>head ", text)) == 6 * 4


def test_a_model_with_neither_has_no_such_section(report):
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.config = SimpleNamespace(image_size=8, in_channels=1)
            self.head = torch.nn.Linear(64, 10)

        def forward(self, images):
            return self.head(images.flatten(1))

    assert "What the model looks at" not in report(model=Plain())


def test_large_pictures_become_thumbnails(report):
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 255, (60, 3, 400, 300), dtype=np.uint8)  # noise, which nothing compresses
    split = ArraySplit("photos/test", photos, np.arange(60) % 10, np.arange(60))
    model = create_model("vit_nano", num_classes=10, in_channels=3)
    text = report(split=split, model=model, mistakes=40)
    sides = {
        Image.open(io.BytesIO(base64.b64decode(data))).size
        for data in re.findall('data:image/jpeg;base64,([^"]+)', text)
    }
    assert (108, 144) in sides and max(max(side) for side in sides) == 144
    assert len(text) < 2_000_000


def test_ticks_are_round_and_inside():
    for low, high, log in ((0, 0.973, False), (0, 2.31, False), (0, 1e-3, False), (0.004, 2.3, True), (3e5, 4e9, True)):
        axis = charts.Axis(low, high, 0, 100, log=log)
        places = [place for place, _ in axis.ticks]
        assert 2 <= len(places) <= 11 and places == sorted(places)
        assert all(0 <= place <= 100 for place in places)
    assert charts.Axis(0, 1, 0, 100, percent=True).ticks[1] == (20.0, "20 %")


def test_ticks_say_where_they_are():
    def texts(low, high, **kind):
        return [text for _, text in charts.Axis(low, high, 0, 100, **kind).ticks]

    assert texts(0, 1.02) == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    assert texts(0, 0.00125) == ["0.00000", "0.00025", "0.00050", "0.00075", "0.00100", "0.00125"]
    assert texts(0, 30) == ["0", "10", "20", "30"]
    assert texts(0.9, 1, percent=True)[:2] == ["90 %", "92 %"]
    assert texts(0.99, 1, percent=True)[:2] == ["99.00 %", "99.25 %"]
    assert texts(0, 5e-5)[1] == "1e-05"
    assert texts(1e6, 1e8, log=True) == ["1 M", "3 M", "10 M", "30 M", "100 M"]


def test_lines_are_thinned_by_means():
    points = [(float(i), float(i % 2)) for i in range(1000)]
    thinned = charts.thin(points)
    assert len(thinned) <= charts.MOST_POINTS
    assert thinned[0] == (3.0, pytest.approx(3 / 7))  # of 0..6
    assert charts.thin(points[:100]) == points[:100]


def test_a_disk_that_is_full_is_named(report, monkeypatch, tmp_path):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(charts, "atomic", full)
    with pytest.raises(OrchardError, match=r"report\.html: No space left"):
        report()


def test_the_best_is_a_whole_epoch_or_a_step():
    assert _best(17.0, 680) == "best epoch: 17" and _best(17.6, 1704) == "best step: 1,704"


def test_feature_maps_are_of_a_stage_and_never_of_a_shortcut():
    """The convolution that runs last in the only block of a stage may be that of its shortcut."""
    images = torch.randn(2, 1, 32, 32)
    model = create_model("resnet_nano", in_channels=1, num_classes=3).eval()
    with torch.no_grad():
        name, maps = _last_maps(model, images)
        stages = model.feature_maps(images)
    number = max(n for n, one in enumerate(stages, 1) if min(one.shape[2:]) >= 7)
    assert name == f"stage {number} of {len(stages)}" and torch.equal(maps, stages[number - 1])

    class Foreign(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.downsample = torch.nn.Conv2d(1, 4, 3), torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3))

        def forward(self, images):
            return self.conv(images) + self.downsample(images)

    with torch.no_grad():
        name, _ = _last_maps(Foreign(), images)
    assert name == "conv"


def test_figures_that_are_one_anothers_negative_are_shown_once(capsys):
    split = {"loss": 2.5, "log_likelihood": -2.5, "perplexity": 12.0, "zero": 0.0, "again": 0.0, "nothing": None}
    show_figures(
        {"model": "m", "data": "d", "validation": split, "test": {**split, "loss": 3.5, "log_likelihood": -3.5}}
    )
    said = capsys.readouterr().out
    assert "loss" in said and "log likelihood" not in said
    assert all(name in said for name in ("perplexity", "zero", "again", "nothing"))


def test_a_comparison_by_a_loss_has_its_own_scale_and_no_per_cent() -> None:
    spots = [Spot("small", 1e6, 2.5, 2.4, 2.6), Spot("large", 4e6, 1.9, 1.8, 2.0)]
    chart = spot_chart("Loss against cost", spots, x_label="multiply-adds", y_label="loss", percent=False)
    assert chart is not None and "%" not in chart.summary and "small: 2.5" in chart.summary
    assert [spot["label"] for spot in chart.spots] == ["small", "large"] and chart.spots[0]["y"] < chart.spots[1]["y"]
    assert all(0 < spot["y"] < chart.height for spot in chart.spots)
