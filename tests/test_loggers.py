"""Metrics beside log.csv: a logger is asked for by name, goes on where it was, and never ends a training."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from orchard.app.train import train
from orchard.errors import UsageError
from orchard.training import loggers
from orchard.training.loggers import Loggers, require_loggers
from orchard.training.run import RunFolder, read_log
from orchard.training.settings import TrainSettings

TINY: dict[str, Any] = {"max_steps": 4, "log_every": 2, "batch_size": 64, "architecture": {"depth": 1}}
BASE = {"model": "vit_nano", "data": {"source": "digits"}}


def test_loggers_are_named_as_a_list_or_with_commas() -> None:
    assert TrainSettings(**BASE).loggers == ("tensorboard",)
    assert TrainSettings(**BASE, loggers="wandb,tensorboard, wandb").loggers == ("wandb", "tensorboard")
    assert TrainSettings(**BASE, loggers=[]).loggers == () == TrainSettings(**BASE, loggers="").loggers


def test_a_logger_that_is_not_installed_is_said_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"wandb is not installed: pip install 'orchard\[wandb\]'") as caught:
        train("vit_nano", "digits", tmp_path / "run", loggers=["wandb"])
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match=r"setting 'loggers\.0': input should be 'tensorboard', 'wandb' or 'mlflow'"):
        train("vit_nano", "digits", tmp_path / "run", loggers=["comet"])


def test_a_folder_of_the_same_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("wandb", "mlflow"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(UsageError, match="wandb is not installed"):
        require_loggers(["tensorboard", "wandb"])


class Failing:
    """A logger that has no network from its second line on."""

    said: list[int]

    def __init__(self, *_: Any):
        self.said = []

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.said.append(step)
        if len(self.said) > 1:
            raise ConnectionError("no route to host\nand much more")

    def flush(self) -> None:
        pass

    def close(self, finished: bool) -> None:
        raise AssertionError("it was left out")


def test_a_logger_that_fails_is_left_out_once_and_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loggers, "WandB", Failing)
    monkeypatch.setattr(loggers, "require_loggers", lambda names: None)
    monkeypatch.setattr("orchard.app.train.require_loggers", lambda names: None)
    train("vit_nano", "digits", tmp_path / "run", **TINY, loggers=["wandb", "tensorboard"])
    said = capsys.readouterr().err
    assert said.count("wandb gets no more metrics: no route to host; the training goes on") == 1
    assert "and much more" not in said
    assert [row["step"] for row in read_log(tmp_path / "run" / "log.csv") if row["split"] == "train"] == ["2", "4"]
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["loggers"]["value"] == ["wandb", "tensorboard"]


def test_one_that_cannot_be_opened_is_left_out_too(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    Loggers(["tensorboard"], RunFolder(tmp_path), 1, {}, said.append).log({"loss/train": 1.0}, 1)
    assert len(said) == 1 and said[0].startswith("tensorboard gets no more metrics: ")


def test_what_w_and_b_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in that keeps what it is told; the next tests ask the packages themselves."""
    told: list[Any] = []
    run = types.SimpleNamespace(
        define_metric=lambda *a, **k: told.append((a, k)),
        log=told.append,
        finish=lambda exit_code: told.append(exit_code),
    )
    stand_in = types.SimpleNamespace(Settings=dict, init=lambda **given: told.append(given) or run)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.setattr(loggers, "identity", lambda run: "1a2b")
    logger = loggers.WandB(RunFolder(tmp_path), {"epochs": 3})
    logger.log({"loss/train": 0.5}, 7)
    logger.close(finished=False)
    opened, steps, line, code = told
    assert opened["id"] == "1a2b" and opened["resume"] == "allow" and opened["config"] == {"epochs": 3}
    assert opened["project"] == "orchard" and opened["dir"] == str(tmp_path)
    assert steps == (("*",), {"step_metric": "step"}) and line == {"loss/train": 0.5, "step": 7} and code == 1


def test_w_and_b_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train("vit_nano", "digits", tmp_path / "run", **TINY, loggers=["wandb"])
    assert "gets no more metrics" not in capsys.readouterr().err
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))


def test_mlflow_in_files_goes_on_in_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    train("vit_nano", "digits", tmp_path / "run", **TINY, loggers=["mlflow"])
    train("vit_nano", "digits", tmp_path / "run", **TINY | {"max_steps": 6}, loggers=["mlflow"])
    assert "gets no more metrics" not in capsys.readouterr().err
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("orchard").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["batch_size"] == "64"
    steps = [one.step for one in client.get_metric_history(run.info.run_id, "loss/train")]
    assert sorted(set(steps)) == [2, 4, 6]
