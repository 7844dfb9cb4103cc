"""Runs and models that version 0.1 wrote are read, evaluated, asked and resumed. One of each task is kept in golden."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import orchard

from orchard.app.evaluate import evaluate
from orchard.app.train import train
from orchard.training.renamed import new_tensors

RUNS = Path(__file__).parent / "golden" / "runs_0_1"
ON_DIGITS = ("image-classification", "image-tokenization", "text-to-image", "zero-shot-image-classification")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHARD_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("task", ON_DIGITS)
def test_a_model_has_the_metrics_it_had(task: str) -> None:
    before = json.loads((RUNS / task / "metrics.json").read_text())["test"]
    found = evaluate(RUNS / task, "digits", "test")["test"]
    found.pop("majority_accuracy", None)  # what takes no model
    assert set(found) <= set(before)
    for name, value in found.items():
        assert value == pytest.approx(before[name], rel=1e-3, abs=1e-6), name


def test_a_language_model_writes_and_a_classifier_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert orchard("generate", RUNS / "text-generation", "A tree", "--length", 5, "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["prompt"] == "A tree"
    shutil.copytree(Path(__file__).parents[1] / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("*.md"))
    assert orchard("predict", RUNS / "image-classification", tmp_path / "docs" / "painted.png", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)[0]["top"]) == 5


def test_an_unfinished_run_is_resumed_under_todays_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its settings and its checkpoint call the discriminator a critic."""
    run = tmp_path / "run"
    shutil.copytree(RUNS / "unfinished", run)
    asked = json.loads((run / "settings.json").read_text())
    settings = {key: row["value"] for key, row in asked.items() if row["origin"] == "command"}
    model, data = settings.pop("model"), settings.pop("data.source")
    assert any("critic" in key for key in settings)
    metrics = train(model, data, run, **settings)
    assert "resuming after step 3 of 3" in capsys.readouterr().err
    before = json.loads((RUNS / "image-tokenization" / "metrics.json").read_text())
    assert metrics["test"]["psnr"] == pytest.approx(before["test"]["psnr"], rel=1e-4)


def test_tensors_of_a_checkpoint_are_renamed_wherever_they_are() -> None:
    old = {
        "model": {"critic.a": 1, "tokenizer.critic": 2},
        "optimizer": {"exp_avg|critic.a": 3},
        "average": {"module.critic.a": 4},
    }
    assert new_tensors(old) == {
        "model": {"discriminator.a": 1, "tokenizer.critic": 2},
        "optimizer": {"exp_avg|discriminator.a": 3},
        "average": {"module.discriminator.a": 4},
    }
