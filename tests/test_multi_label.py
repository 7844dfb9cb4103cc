"""Several labels and numbers of an image: objectives, thresholds, and one small training of each, to its answers."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import orchard
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, f1_score, mean_absolute_error, r2_score
from torch import nn

import orchard as package
from orchard.app import compare as comparing
from orchard.errors import OrchardError, UsageError
from orchard.inference.export import export
from orchard.inference.loading import load
from orchard.inference.outputs import Numbers, OneClass, SeveralClasses, outputs_of
from orchard.inference.session import find_session
from orchard.models import create_model
from orchard.tasks.image_classification.image_objective import Predictions
from orchard.tasks.image_classification.job import pixel_entries
from orchard.tasks.image_classification.multi_label import MultiLabel
from orchard.tasks.image_classification.multi_label_metrics import HALF, choose_thresholds, multi_label_metrics
from orchard.tasks.image_classification.regression import Regression
from orchard.weights.portable import Portable, architecture_of, save_portable

# Objectives


def random_predictions(count: int = 60, classes: int = 4, seed: int = 0) -> Predictions:
    rng = torch.Generator().manual_seed(seed)
    labels = (torch.rand(count, classes, generator=rng) < torch.linspace(0.1, 0.8, classes)).float()
    logits = 2 * labels - 1 + 1.5 * torch.randn(count, classes, generator=rng)
    return Predictions(logits, labels, torch.arange(count))


def test_multi_label_metrics_are_scikit_learn_s() -> None:
    found = random_predictions()
    labels, probabilities = found.labels.numpy(), found.logits.sigmoid().numpy()
    objective = MultiLabel("abcd", thresholds=(0.3, 0.5, 0.6, 0.2))
    metrics = objective.final_metrics(found)
    said = probabilities >= objective.thresholds
    assert metrics["map"] == pytest.approx(average_precision_score(labels, probabilities, average="macro"))
    for average in ("macro", "micro"):
        assert metrics[f"{average}_f1"] == pytest.approx(f1_score(labels, said, average=average))
    assert metrics["subset_accuracy"] == pytest.approx((said == labels).all(1).mean())
    assert metrics["constant_map"] == pytest.approx(labels.mean())
    loss = nn.functional.binary_cross_entropy_with_logits(found.logits, found.labels)
    assert metrics["loss"] == pytest.approx(float(loss)) == float(objective.criterion(found.logits, found.labels))
    smooth = MultiLabel("abcd", label_smoothing=0.2).criterion(found.logits, found.labels)
    by_hand = nn.functional.binary_cross_entropy_with_logits(found.logits, found.labels * 0.8 + 0.1)
    assert float(smooth) == pytest.approx(float(by_hand))
    none = Predictions(found.logits, found.labels.clone().index_fill_(1, torch.tensor(2), 0), found.indices)
    kept = [0, 1, 3]  # a class that no image has leaves the mean of the others
    expected = average_precision_score(labels[:, kept], probabilities[:, kept], average="macro")
    assert objective.compute_metrics(none)["map"] == pytest.approx(expected)
    assert objective.missing(none.labels) == ["c"]


def test_a_threshold_has_the_best_f1_that_there_is() -> None:
    for seed in range(2):
        found = random_predictions(20, 3, seed)
        labels, probabilities = found.labels.numpy(), found.logits.sigmoid().numpy()
        thresholds = choose_thresholds(probabilities, labels)
        for k, threshold in enumerate(thresholds):
            tried = [f1_score(labels[:, k], probabilities[:, k] >= p) for p in (*probabilities[:, k], HALF)]
            assert f1_score(labels[:, k], probabilities[:, k] >= threshold) == pytest.approx(max(tried))
            assert (np.abs(probabilities[:, k] - threshold) > 1e-6).all()  # between two, not on one
    at = np.array([[0.9], [0.8], [0.2], [0.1]])
    assert choose_thresholds(at, np.array([[1], [1], [0], [0]])) == (HALF,)  # all between 0.2 and 0.8 are equal
    assert choose_thresholds(at, np.array([[1], [0], [0], [0]])) == pytest.approx((0.85,))
    assert choose_thresholds(at, np.zeros((4, 1))) == choose_thresholds(at, np.ones((4, 1))) == (HALF,)
    assert choose_thresholds(at * np.nan, np.array([[1], [0], [0], [0]])) == (HALF,)


def test_regression_answers_in_the_unit_of_the_data() -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal((170, 0.02), (10, 0.005), (50, 2)).astype(np.float32)
    mean, std, median = (np.asarray(x).tolist() for x in (labels.mean(0), labels.std(0), np.median(labels, 0)))
    objective = Regression(("height", "share"), mean, std, median)
    values = labels + rng.normal(0, (3, 0.001), labels.shape).astype(np.float32)
    found = Predictions(
        torch.from_numpy((values - mean) / std).float(), torch.from_numpy(labels), torch.arange(len(labels))
    )
    metrics = objective.final_metrics(found)
    assert metrics["mae"] == pytest.approx(mean_absolute_error(labels, values), rel=1e-4)
    assert metrics["r2"] == pytest.approx(r2_score(labels, values), rel=1e-3)
    assert metrics["rmse"] == pytest.approx(np.sqrt(((labels - values) ** 2).mean(0)).mean(), rel=1e-4)
    assert metrics["median_mae"] == pytest.approx(np.abs(labels - np.median(labels, 0)).mean(), rel=1e-4)
    assert metrics["loss"] == pytest.approx(float(objective.criterion(found.logits, found.labels)))
    assert float(objective.batch_metrics(found.logits, found.labels)["mae"]) == pytest.approx(metrics["mae"], rel=1e-4)
    swapped = objective.align(found.labels.flip(1), ("share", "height"))
    assert torch.is_tensor(swapped) and torch.equal(swapped, found.labels)
    assert isinstance(said := objective.align(found.labels, ("age", "height")), str) and "gives height, share" in said
    assert np.isnan(objective.compute_metrics(Predictions(found.logits * np.nan, found.labels, found.indices))["mae"])


@pytest.mark.parametrize(
    "outputs",
    [
        OneClass(("a", "b", "c")),
        SeveralClasses(("a", "b", "c"), (0.2, 0.5, 0.9)),
        Numbers(("a", "b", "c"), (1.0, 2.0, 3.0), (1.0, 0.5, 2.0), (1.0, 2.0, 3.0)),
    ],
)
def test_arrays_and_tensors_are_answered_alike(outputs: Any) -> None:
    given = np.array([[3.0, -1, 0.5], [-800, 900, 0], [0, 0, 0]])
    answers = outputs.answers(given)
    assert np.allclose(answers, outputs.tensor(torch.from_numpy(given)).numpy(), atol=1e-12)
    names = [outputs.named(row, 2) for row in answers.tolist()]
    if isinstance(outputs, SeveralClasses):
        assert [[name for name, _ in row] for row in names] == [["a"], ["b"], ["a", "b"]]
    else:
        assert [len(row) for row in names] == ([2] * 3 if isinstance(outputs, OneClass) else [3] * 3)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"target": "boxes"}, "'facts.target' is 'boxes'; expected class, classes, number"),
        ({"target": ["class"]}, "'facts.target' is"),
        ({"target": "classes"}, "'facts.thresholds': field required"),
        ({"target": "classes", "thresholds": [0.5]}, "'facts.thresholds' has 1 values for 2 names"),
        ({"target": "classes", "thresholds": [0.5, 2]}, "'facts.thresholds.1': input should be less than"),
        (
            {"target": "number", "mean": [0, 0], "std": [1, 0], "median": [0, 0]},
            "'facts.std.1': input should be greater",
        ),
        ({"target": "number", "mean": [0, "x"], "std": [1, 1], "median": [0, 0]}, "'facts.mean.1': input should be a"),
    ],
)
def test_facts_that_are_not_of_their_form(facts: dict[str, Any], said: str) -> None:
    with pytest.raises(OrchardError) as error:
        outputs_of(("a", "b"), facts, "model/config.json")
    assert str(error.value).startswith("model/config.json: ") and said in str(error.value)


# From data to answers


def pairs(root: Path, count: int = 240) -> tuple[Path, Path]:
    """Two digits side by side: a table of which they are, and of whether one is even; one of their sum and the ink."""
    scans, rng = load_digits(), np.random.default_rng(0)
    classes, numbers = ["path,zero,one,two,three,even"], ["path,sum,ink"]
    for n, two in enumerate(rng.integers(0, 360, (count, 2))):
        two = np.flatnonzero(scans.target < 4)[two]
        pixels = (np.concatenate(list(scans.images[two]), 1) * 255 / 16).round().astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{n}.png")
        digits = scans.target[two]
        flags = [*(int(d in digits) for d in range(4)), int((digits % 2 == 0).any())]
        classes.append(f"{n}.png,{','.join(map(str, flags))}")
        numbers.append(f"{n}.png,{digits.sum()},{pixels.mean() * 100:.1f}")
    for name, lines in (("classes.csv", classes), ("numbers.csv", numbers)):
        (root / name).write_text("\n".join(lines) + "\n")
    return root / "classes.csv", root / "numbers.csv"


TARGETS = ("classes", "number")
NUMBERS = {"data.target": "number", "data.columns.label": "sum,ink"}
SMALL = {
    "image_size": 16, "architecture": {"patch": 4, "width": 24, "depth": 1, "heads": 2}, "threads": 1, "epochs": 6,
    "batch_size": 16, "optimizer.lr": 0.01, "schedule.warmup_epochs": 0.5, "augmentation.crop": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    classes, numbers = pairs(tmp_path_factory.mktemp("pairs"))
    return {"classes": (classes, {}), "number": (numbers, NUMBERS)}


@pytest.fixture(scope="module")
def runs(sets: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    root = tmp_path_factory.mktemp("runs")
    return {
        target: package.train("vit_nano", str(path), root / target, **SMALL, **settings)
        for target, (path, settings) in sets.items()
    }


def test_they_learn_and_say_how_well(runs: Mapping[str, Any], sets: Mapping[str, Any]) -> None:
    several, numbers = runs["classes"], runs["number"]
    assert several["metric"] == "map" and several["test"]["map"] > several["test"]["constant_map"] + 0.2
    assert numbers["metric"] == "mae" and numbers["test"]["mae"] < 0.6 * numbers["test"]["median_mae"]
    for target, run in runs.items():
        folder = Path(run["run"])
        page = (folder / "report.html").read_text()
        said = {"classes": ("Average precision: over all", "Most confident"), "number": ("Predicted and true", "R²")}
        assert all(word in page for word in said[target])
        with (folder / "log.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "validation"]
        best = min(rows, key=lambda row: -float(row["map"])) if target == "classes" else min(
            rows, key=lambda row: float(row["mae"]))  # fmt: skip
        assert float(best[run["metric"]]) == pytest.approx(run["validation"][run["metric"]], rel=1e-4)
        path, settings = sets[target]
        settings = {key: value for key, value in settings.items() if key != "data.target"}  # which the model knows
        again = package.evaluate(folder, str(path), "test", settings)
        for name, value in run["test"].items():
            assert again["test"][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
        facts = json.loads((folder / "model" / "config.json").read_text())["facts"]
        assert facts["target"] == target and json.loads((folder / "run.json").read_text())["data"]["target"] == target


def test_thresholds_are_those_of_the_best_weights(runs: Mapping[str, Any]) -> None:
    from safetensors.torch import load_file

    folder = Path(runs["classes"]["run"])
    found = Predictions(**load_file(folder / "evaluation" / "validation.safetensors"))
    thresholds = choose_thresholds(found.logits.sigmoid().numpy(), found.labels.numpy())
    assert json.loads((folder / "model" / "config.json").read_text())["facts"]["thresholds"] == pytest.approx(
        thresholds
    )
    test = Predictions(**load_file(folder / "evaluation" / "test.safetensors"))
    metrics = multi_label_metrics(test.logits.sigmoid().numpy(), test.labels.numpy(), thresholds)
    assert metrics["macro_f1"] == pytest.approx(runs["classes"]["test"]["macro_f1"])


@pytest.mark.parametrize("target", TARGETS)
def test_answers_are_the_same_with_and_without_torch(
    target: str, runs: Mapping[str, Any], sets: Mapping[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from orchard.inference.session_making import make_session

    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("ORCHARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("orchard.inference.session_making._median", lambda run: float(run() is not None))
    folder, (path, _) = Path(runs[target]["run"]), sets[target]
    paths = [str(path.with_name(f"{n}.png")) for n in range(4)]

    def answers() -> Any:
        assert orchard("predict", folder, *paths, "--json") == 0
        return json.loads(capsys.readouterr().out)

    def rows(form: str) -> list[list[str]]:
        assert orchard("predict", folder, *paths, "--csv", tmp_path / f"{form}.csv") == 0
        return list(csv.reader((tmp_path / f"{form}.csv").open(newline="")))

    plain, table = answers(), rows("plain")
    assert find_session(folder / "model") is None
    make_session(folder / "model")
    assert find_session(folder / "model") is not None
    by_session = answers()
    pipe = package.pipeline(folder)
    for one, other, said in zip(plain, by_session, pipe(paths), strict=True):
        if target == "classes":
            assert [label["class"] for label in one["labels"]] == [label["class"] for label in other["labels"]]
            assert [name for name, _ in said.top] == [label["class"] for label in one["labels"]]
            given, others = ([label["probability"] for label in x["labels"]] for x in (one, other))
        else:
            assert list(one["numbers"]) == ["sum", "ink"] and dict(said.top) == one["numbers"]
            given, others = (list(x["numbers"].values()) for x in (one, other))
        assert given == pytest.approx(others, rel=1e-4, abs=1e-4)
    columns = ["labels", "probabilities"] if target == "classes" else ["sum", "ink"]
    for written in (table, rows("session")):
        assert written[0] == ["picture", *columns, "error"] and [row[0] for row in written[1:]] == paths
        for row, one in zip(written[1:], plain, strict=True):
            if target == "classes":
                assert row[1] == "|".join(label["class"] for label in one["labels"])
            else:
                assert [*map(float, row[1:3])] == pytest.approx(list(one["numbers"].values()), rel=1e-4, abs=1e-4)
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert orchard("predict", folder, paths[0], tmp_path / "bad.png") == 1
    assert ("labels" if target == "classes" else "sum") in capsys.readouterr().out


def test_an_exported_program_says_what_the_model_says(
    runs: Mapping[str, Any], sets: Mapping[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    loaded = load(runs["classes"]["run"])
    (written,) = export(loaded, pixel_entries(loaded), "onnx", tmp_path / "several.onnx")
    picture = str(sets["classes"][0].with_name("3.png"))
    said = subprocess.run([sys.executable, str(written.program), picture], capture_output=True, text=True, check=True)
    names = [line.split()[1] for line in said.stdout.splitlines()[1:]]
    assert names == [name for name, _ in package.pipeline(runs["classes"]["run"])(picture)[0].top]


def test_pixels_in_and_numbers_in_their_unit_out(
    runs: Mapping[str, Any], sets: Mapping[str, Any], tmp_path: Path
) -> None:
    loaded = load(runs["number"]["run"])
    picture = sets["number"][0].with_name("3.png")
    (entry,) = pixel_entries(loaded)
    pixels = torch.from_numpy(np.asarray(Image.open(picture))[None, :, :, None].copy())
    with torch.no_grad():
        values = entry.module(pixels)[0].tolist()
    answer = package.pipeline(runs["number"]["run"])(str(picture))[0]
    assert entry.output == "numbers" and values == pytest.approx([value for _, value in answer.top], rel=1e-3)


def test_a_comparison_is_by_the_metric_of_the_data(
    sets: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "ROUNDS", 1)
    monkeypatch.setattr(comparing, "THROUGHPUT_BATCH", 2)
    path, settings = sets["number"]
    small = {**SMALL, **settings, "epochs": 1}
    small |= {f"architecture.{key}": value for key, value in small.pop("architecture").items()}
    budget = comparing.Budget("epochs", 1)
    del small["epochs"]
    result = comparing.compare(["vit_nano"], str(path), tmp_path, budget=budget, settings=small)
    (row,) = result["contestants"]
    assert result["metric"] == {"name": "mae", "larger_is_better": False, "percent": False, "selects": True}
    assert row["mae"] == row["runs"][0]["mae"] > 0 and "metric" not in row and row["error"] is None
    assert "mae" in (tmp_path / "compare.csv").read_text().partition("\n")[0]


def test_fine_tuning_keeps_the_trunk_and_no_head_of_another_target(
    runs: Mapping[str, Any], sets: Mapping[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from orchard.tasks.known_classes import fine_tuned_model

    shape = {"image_size": 16, "in_channels": 1, **SMALL["architecture"]}  # type: ignore[dict-item]
    model = create_model("vit_nano", num_classes=5, **shape)
    nn.init.normal_(model.head.weight)
    names = ("zero", "one", "two", "three", "even")
    about = Portable("vit_nano", architecture_of(model), "image-classification", names)
    save_portable(tmp_path / "single", model, about)
    settings: Any = type("Start", (), {"model": "vit_nano", "start_from": str(tmp_path / "single")})
    tuned = fine_tuned_model(settings, {"num_classes": 5}, names, "classes")
    assert not torch.equal(tuned.head.weight, model.head.weight)
    assert torch.equal(tuned.blocks[0].attention.out.weight, model.blocks[0].attention.out.weight)
    assert "has learned one class of an image, here it is several classes" in capsys.readouterr().err
    settings.start_from = runs["classes"]["run"]
    kept = fine_tuned_model(settings, {"num_classes": 5}, names, "classes")
    assert torch.equal(kept.head.weight, load(runs["classes"]["run"]).model.head.weight)
    with pytest.raises(UsageError, match=r"augmentation.mixup has no meaning .* numbers, as in .*numbers.csv"):
        path, numbers = sets["number"]
        package.train("vit_nano", str(path), tmp_path / "mixed", **{**SMALL, **numbers, "augmentation.mixup": 0.2})


def test_data_of_another_target_is_refused(runs: Mapping[str, Any], sets: Mapping[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"has learned data.target=classes; digits is class"):
        package.evaluate(runs["classes"]["run"], "digits")
    with pytest.raises(OrchardError, match=r"gives sum, ink, and .* has sum"):
        package.evaluate(runs["number"]["run"], str(sets["number"][0]), None, {"columns.label": "sum"})
    other = [(np.zeros((8, 16), np.uint8), ["zero", "seven"]), (np.ones((8, 16), np.uint8), ["zero"])]
    with pytest.raises(OrchardError, match="does not know the class 'seven' of object:list"):
        package.evaluate(runs["classes"]["run"], other)


def test_a_person_s_own_metric_sees_outputs_and_labels(runs: Mapping[str, Any], sets: Mapping[str, Any]) -> None:
    seen: list[tuple[int, ...]] = []

    def own(outputs: torch.Tensor, labels: torch.Tensor) -> float:
        seen.append((*outputs.shape, *labels.shape))
        return 1.0

    path, settings = sets["classes"]
    found = package.evaluate(runs["classes"]["run"], str(path), "test", settings, metrics={"own": own})
    assert found["test"]["own"] == 1 and seen == [(found["count"], 5, found["count"], 5)]
    with pytest.raises(UsageError, match="'constant_map' is computed already"):
        package.evaluate(runs["classes"]["run"], str(path), "test", settings, metrics={"constant_map": own})
