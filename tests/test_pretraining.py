"""Layers that are pretrained one after another before the labels: phases that begin and end, in one exact loop."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from orchard.app.train import resolve_training, train
from orchard.errors import UsageError
from orchard.models import create_model
from orchard.tasks.image_classification.job import Job
from orchard.training.loop import Trainer
from orchard.training.phases import Phase, batches_before
from orchard.training.run import RunFolder

SMALL: dict[str, Any] = {
    "architecture": {"hidden_sizes": [12, 10], "image_size": 8},
    "batch_size": 256,  # four steps an epoch
    "epochs": 4,
    "pretraining.epochs": 1,
    "pretraining.lr": 0.01,
    "optimizer.lr": 0.005,
    "schedule.warmup_steps": 1,
    "log_every": 3,
    "checkpoint_steps": 1,
    "loggers": (),
}


def weights(run: Path, folder: str) -> dict[str, torch.Tensor]:
    return load_file(run / folder / "model.safetensors")


def lines(run: Path) -> list[dict[str, str]]:
    with (run / "log.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


class StopAfter:
    """Kills a training at a step, after what that leaves on disk."""

    def __init__(self, step: int):
        self.step = step

    def on_step(self, moment: Any) -> None:
        if moment.step > self.step:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pretraining") / "run"
    train("dbn_nano", "digits", path, **SMALL)
    return path


def test_a_phase_lasts_from_its_first_step_to_its_last() -> None:
    phase = Phase("", lambda *_: NotImplemented, every=3, repeat=2, fresh_batch=True, begins=4, ends=13)
    happens = [step for step in range(20) if phase.happens(step)]
    assert happens == [6, 9, 12]
    for step in range(20):
        assert phase.runs_before(step) == sum(one < step for one in happens)
        assert batches_before((phase,), step) == step + sum(one < step for one in happens)


@pytest.mark.parametrize("step", [3, 4, 8, 10])
def test_killed_in_a_phase_and_at_its_border_and_resumed_ends_in_the_same_bits(
    whole: Path, tmp_path: Path, step: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train("dbn_nano", "digits", tmp_path / "run", callbacks=[StopAfter(step)], **SMALL)
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())[-1] == f"step_{step:09d}"
    train("dbn_nano", "digits", tmp_path / "run", **SMALL)
    expected, found = weights(whole, "model"), weights(tmp_path / "run", "model")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert lines(tmp_path / "run") == lines(whole)


def test_the_log_has_each_layer_by_itself_and_evaluations_begin_with_the_labels(whole: Path) -> None:
    rows = lines(whole)
    training = {int(row["step"]): row for row in rows if row["split"] == "train"}
    assert {4, 8} < training.keys()  # a line ends where a phase does
    for step, row in training.items():
        assert bool(row["reconstruction_error"]) == (step <= 8) and bool(row["loss"]) == (step > 8)
        assert float(row["lr"]) < (0.01 if step <= 8 else 0.005) * 1.001
    assert [int(row["step"]) for row in rows if row["split"] == "validation"] == [12, 16]
    assert json.loads((whole / "metrics.json").read_text())["best_step"] > 8
    report = (whole / "report.html").read_text()
    assert "Filters and reconstructions" in report and "Reconstruction error in pretraining" in report


def trainer(path: Path, **changes: Any) -> Trainer:
    resolved, _ = resolve_training("dbn_nano", "digits", {**SMALL, **changes})
    run = RunFolder(path)
    run.open({})
    return Trainer(Job(resolved, torch.device("cpu")), run, lambda line: None)


def test_a_step_changes_the_layer_whose_turn_it_is_and_its_optimizer_is_forgotten(tmp_path: Path) -> None:
    loop = trainer(tmp_path / "run")
    batches = loop.feed.batches(0)
    for step in range(10):
        before = {name: parameter.detach().clone() for name, parameter in loop.stepper.bare.named_parameters()}
        loop.step(batches)
        now = loop.stepper.bare.named_parameters()
        changed = {name for name, parameter in now if not torch.equal(before[name], parameter)}
        layer = f"rbms.{step // 4}." if step < 8 else ("rbms.", "head.")
        assert changed and all(name.startswith(layer) for name in changed)
        if step >= 8:
            assert not any("visible_bias" in name for name in changed)
        kept = {name for name, optimizer in loop.stepper.plain_optimizers.items() if optimizer.state}
        assert kept == (set() if step in (3, 7) else {"main" if step >= 8 else f"pretraining.{step // 4}"})


def test_optimizers_that_share_a_step_may_not_share_a_parameter(tmp_path: Path) -> None:
    resolved, _ = resolve_training("dbn_nano", "digits", SMALL)
    job = Job(resolved, torch.device("cpu"))

    class Overlapping(Job):
        phases = (*job.phases, Phase("too long", lambda *_: NotImplemented, ("rbms.0.",), "other", begins=0, ends=9))

    job.__class__ = Overlapping
    with pytest.raises(ValueError, match="let the phases share one"):
        Trainer(job, RunFolder(tmp_path), lambda line: None)


def test_patience_counts_from_the_first_evaluation(tmp_path: Path) -> None:
    found = train("dbn_nano", "digits", tmp_path / "run", **SMALL | {"patience": 1, "pretraining.epochs": 1.5})
    assert found["steps"] == 16


def test_pretraining_alone_is_a_start_for_few_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("dbn_nano", "digits", tmp_path / "stack", **SMALL | {"epochs": 2})
    assert "no class is learned" in capsys.readouterr().err
    torch.manual_seed(0)
    model = create_model("dbn_nano", hidden_sizes=(12, 10))
    pretrained = weights(tmp_path / "stack", "model")
    assert torch.equal(pretrained["head.weight"], model.head.weight)
    assert not torch.equal(pretrained["rbms.1.weight"], model.rbms[1].weight)


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        ("lenet5", {"pretraining.epochs": 2}, "lenet5 has no layers to pretrain"),
        ("lenet5", {"pretraining.lr": 0.1}, "setting 'pretraining.lr': lenet5 has no layers"),
        ("dbn_nano", {"pretraining.epoch": 2}, "did you mean pretraining.epochs"),
        ("dbn_nano", {"pretraining.k": 0}, "greater than or equal to 1"),
        ("dbn_nano", {"pretraining.epochs": 1, "start_from": "x", "freeze_trunk": True}, "freeze_trunk keeps"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, model: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        train(model, "digits", tmp_path / "run", **settings)
    assert "\n" not in str(caught.value)
