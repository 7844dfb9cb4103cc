"""The loop: exact, whole, kind. Everything here trains `vit_nano`-sized networks on the embedded digits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from log_lines import log_lines
from safetensors.torch import load_file

from orchard.app.train import train
from orchard.errors import OrchardError, UsageError
from orchard.training.checkpoint import Checkpoints
from orchard.training.optim import learning_rate_factor
from orchard.training.run import RunFolder
from orchard.training.settings import ScheduleSettings, TrainSettings, resolve
from orchard.training.state import State

SMALL: dict[str, Any] = {
    "architecture.width": 16,
    "architecture.depth": 2,
    "architecture.heads": 2,
    "architecture.dropout": 0.1,
    "image_size": 16,
    "batch_size": 128,
    "epochs": 3,
    "ema": 0.9,
    "augmentation.mixup": 0.2,
    "checkpoint_minutes": 0,
    "checkpoint_steps": 1,
    "log_every": 4,
}


def orchard(*words: object, **kwargs: object) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "orchard.cli.main", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, **kwargs,
    )  # type: ignore[call-overload]  # fmt: skip


def command_line(out: Path, **changes: object) -> list[object]:
    settings = {**SMALL, **changes}
    pairs = [f"{key}={value}" for key, value in settings.items()]
    words: list[object] = ["train", "vit_nano", "--data", "digits", "--out", out, "--json"]
    for pair in pairs:
        words += ["--set", pair]
    return words


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One training without interruption, by the command line."""
    out = tmp_path_factory.mktemp("whole") / "run"
    process = orchard(*command_line(out))
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    answer = json.loads(stdout)
    assert answer["run"] == str(out)
    assert 0 <= answer["test"]["accuracy"] <= 1
    return out


def test_run_folder_is_complete(whole: Path) -> None:
    metrics = json.loads((whole / "metrics.json").read_text())
    settings = json.loads((whole / "settings.json").read_text())
    facts = json.loads((whole / "run.json").read_text())
    assert metrics["steps"] == len(range(0, metrics["steps"]))
    assert settings["epochs"] == {"value": 3.0, "origin": "command"}
    assert settings["seed"]["origin"] == "default"
    assert settings["precision"]["origin"].startswith("chosen")
    assert len(facts["data"]["fingerprint"]) == 64
    assert {"torch", "orchard", "python"} <= set(facts["versions"])
    assert "<html" in (whole / "report.html").read_text()
    steps = [int(row["step"]) for row in log_lines(whole) if row["split"] == "train"]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("moment", [pytest.param(2, marks=pytest.mark.slow), 13])
def test_killed_anywhere_and_started_again_ends_in_the_same_bits(whole: Path, tmp_path: Path, moment: int) -> None:
    out = tmp_path / "run"
    process = orchard(*command_line(out))
    for _ in range(3000):  # until the checkpoint of that moment is there
        if process.poll() is not None or list((out / "checkpoints").glob(f"step_{moment:09d}")):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = orchard(*command_line(out))
    _, stderr = again.communicate(timeout=300)
    assert again.returncode == 0, stderr
    assert "resuming after step" in stderr
    expected, found = weights(whole), weights(out)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert log_lines(out) == log_lines(whole)


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = orchard(*command_line(out, epochs=500))
    for _ in range(12000):
        if list((out / "checkpoints").glob("step_*")):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in stderr
    assert "Traceback" not in stderr


def test_two_processes_learn_what_one_learns(whole: Path, tmp_path: Path) -> None:
    changes = {"ema": "null", "architecture.dropout": 0.0, "epochs": 2}
    for name, devices in (("one", 1), ("two", 2)):
        process = orchard(*command_line(tmp_path / name, devices=devices, **changes))
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    one, two = log_lines(tmp_path / "one"), log_lines(tmp_path / "two")
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for a, b in zip(one, two, strict=True):
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), rel=2e-4)


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path: Path) -> None:
    warnings: list[str] = []
    checkpoints = Checkpoints(tmp_path, warnings.append)
    for step in (1, 2, 3):
        checkpoints.save(step, {"model": {"w": torch.full((3,), float(step))}}, {"step": step})
    assert [path.name for path in checkpoints.newest_first()] == ["step_000000003", "step_000000002"]
    newest = tmp_path / "step_000000003" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-2] + b"xx")
    found = checkpoints.load_newest()
    assert found is not None
    assert found[1] == {"step": 2}
    assert torch.equal(found[0]["model"]["w"], torch.full((3,), 2.0))
    assert "step_000000003" in warnings[0]
    assert "damaged" in warnings[0]


def test_a_full_disk_leaves_the_checkpoint_before_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path, print)
    checkpoints.save(1, {"model": {"w": torch.ones(3)}}, {"step": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OrchardError, match=r"No space left on device; the checkpoint .*step_000000001 is whole"):
        checkpoints.save(2, {"model": {"w": torch.ones(3)}}, {"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["step_000000001"]
    found = checkpoints.load_newest()
    assert found is not None
    assert found[1] == {"step": 1}


def test_a_loss_that_is_no_number_stops_before_the_weights_are_harmed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(OrchardError, match=r"(loss|gradient) became (nan|inf) at step \d+ .* in the batch of digits"):
        train("vit_nano", "digits", out, **{**SMALL, "optimizer.lr": 1e30, "optimizer.name": "sgd", "ema": None})
    newest = sorted((out / "checkpoints").glob("step_*"))[-1]
    assert all(t.isfinite().all() for t in load_file(newest / "model.safetensors").values())


def test_other_settings_in_the_same_folder_are_refused(whole: Path) -> None:
    with pytest.raises(UsageError, match=r"seed=0, now seed=7 is asked for"):
        train("vit_nano", "digits", whole, **{**SMALL, "seed": 7})


def test_a_finished_run_is_not_trained_again(whole: Path) -> None:
    before = (whole / "model" / "model.safetensors").stat().st_mtime_ns
    assert train("vit_nano", "digits", whole, **SMALL)["run"] == str(whole)
    assert (whole / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("\\begin")
    with pytest.raises(UsageError, match="exists and is no run of ours"):
        train("vit_nano", "digits", tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_fine_tuning_takes_the_trunk_and_leaves_it_frozen(whole: Path, tmp_path: Path) -> None:
    changes = {"start_from": str(whole), "freeze_trunk": True, "ema": None, "epochs": 1, "optimizer.layer_decay": 0.5}
    settings = {k: v for k, v in {**SMALL, **changes}.items() if not k.startswith("architecture")}
    train("vit_nano", "digits", tmp_path / "tuned", **settings)
    before, after = weights(whole), weights(tmp_path / "tuned")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"head.weight", "head.bias"}


def test_accumulating_gradients_learns_the_same(tmp_path: Path) -> None:
    changes = {"architecture.dropout": 0.0, "ema": None, "epochs": 1}
    for name, parts in (("one", 1), ("four", 4)):
        train("vit_nano", "digits", tmp_path / name, **{**SMALL, **changes, "accumulate": parts})
    one, four = weights(tmp_path / "one"), weights(tmp_path / "four")
    for name in one:
        torch.testing.assert_close(one[name], four[name], rtol=1e-3, atol=1e-4)


def test_settings_know_where_they_come_from_and_refuse_what_they_do_not_know() -> None:
    resolved = resolve({"model": "vit_nano", "data.source": "digits", "optimizer.lr": 0.5}, None, "", TrainSettings)
    assert resolved.to_json()["optimizer.lr"] == {"value": 0.5, "origin": "command"}
    with pytest.raises(UsageError, match=r"unknown setting 'optimizer.lrr'; did you mean optimizer.lr"):
        resolve({"model": "vit_nano", "data.source": "digits", "optimizer.lrr": 1}, None, "", TrainSettings)
    with pytest.raises(UsageError, match="setting 'batch_size': input should be greater than 0, got -3"):
        resolve({"model": "vit_nano", "data.source": "digits", "batch_size": -3}, None, "", TrainSettings)


def test_the_rate_rises_and_falls() -> None:
    settings = ScheduleSettings(final_fraction=0.1)
    rates = [learning_rate_factor(step, 100, 10, settings) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[10] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate_factor(20, 100, 10, settings, spent=1.0) == pytest.approx(0.1)


CHANGES = [{}, {"step": 1}, {"step": -1}, {"sums": None}, {"best_score": "high"}, {"counted": 1.5}]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("summed", [True, False])
def test_facts_that_are_not_those_of_a_checkpoint_are_not_trained_on(
    tmp_path: Path, change: dict[str, object], summed: bool
) -> None:
    """As version 0.1 wrote them they have no sum; then their form tells."""
    warnings: list[str] = []
    checkpoints = Checkpoints(tmp_path, warnings.append)
    for step in (1, 2):
        checkpoints.save(step, {"model": {"w": torch.full((3,), float(step))}}, State(step=step).facts())
    file = tmp_path / "step_000000002" / "state.json"
    state = json.loads(file.read_text())
    state["facts"] = state["facts"] | change if change else {}
    if not summed:
        del state["sha256"]["facts"]
    file.write_text(json.dumps(state))
    found = checkpoints.load_newest()
    assert found is not None
    if summed or not change or "step" in change:
        assert found[1]["step"] == 1 and "step_000000002" in warnings[0] and State.read(found[1], tmp_path).step == 1
    else:
        with pytest.raises(OrchardError, match="not of the form that is written"):
            State.read(found[1], tmp_path)


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    for state in (State(), State(3, 1.5, -2.0, 2, 1, "early", {"loss": 0.5}, 4)):
        assert State.read(json.loads(json.dumps(state.facts(), allow_nan=False)), tmp_path) == state
    with pytest.raises(OrchardError, match="remove that checkpoint"):
        State.read({"step": 3}, tmp_path)


@pytest.mark.parametrize(
    "text", ["{}", "[]", "null", "", '{"requested": 3}', "[" * 10_000, '{"requested": {}, "data": {}}']
)
def test_a_run_json_of_another_form_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(OrchardError, match=r"run\.json"):
        RunFolder(tmp_path).open({"seed": 0})
