"""The run folder: what is ours in it and what is somebody's, what ends a run and what goes on."""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import orchard
from PIL import Image

from orchard.app.train import train
from orchard.errors import OrchardError, UsageError
from orchard.tasks.image_classification.job import Job
from orchard.training.board import Board
from orchard.training.checkpoint import Checkpoints
from orchard.training.run import RunFolder, free_folder

TINY: dict[str, Any] = {
    "architecture.width": 16, "architecture.depth": 2, "architecture.heads": 2, "image_size": 8,
    "architecture.patch": 4, "batch_size": 128, "max_steps": 2,
}  # fmt: skip
ARGUMENTS = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]


def save(checkpoints: Checkpoints, *steps: int) -> None:
    for step in steps:
        checkpoints.save(step, {"model": {"a": torch.tensor([float(step)])}}, {"step": step})


def test_folders_of_a_person_among_the_checkpoints_stay(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    save(Checkpoints(folder, str), 1)
    theirs = ["step_000000001_mine", "step_old", "step_999999999", "step_1"]
    for name in theirs:
        (folder / name).mkdir()
        (folder / name / "notes.txt").write_text("mine")
    (folder / "step_000000001" / "notes.txt").write_text("mine too")
    outside = tmp_path / "outside"
    save(Checkpoints(outside, str), 7)
    (folder / "step_000000007").symlink_to(outside / "step_000000007")
    checkpoints = Checkpoints(folder, str)
    save(checkpoints, 2, 3, 4)
    assert [path.name for path in checkpoints.newest_first()] == ["step_000000004", "step_000000003"]
    groups, facts = checkpoints.load_newest() or ({}, {})
    assert facts["step"] == 4 and groups["model"]["a"].item() == 4
    assert all((folder / name / "notes.txt").read_text() == "mine" for name in theirs)
    assert [path.name for path in (folder / "step_000000001").iterdir()] == ["notes.txt"]
    assert (outside / "step_000000007" / "state.json").is_file() and (folder / "step_000000007").is_symlink()
    assert not (folder / "step_000000002").exists()


@pytest.mark.parametrize("name", [".lock", "best", "checkpoints", "model", "metrics.json", "tensorboard"])
def test_links_in_a_run_folder_are_not_written_through(name: str, tmp_path: Path) -> None:
    outside, out = tmp_path / "outside", tmp_path / "run"
    outside.write_text("precious")
    out.mkdir()
    (out / "run.json").write_text(json.dumps({"requested": {}}))
    (out / name).symlink_to(outside)
    run = RunFolder(out)
    with pytest.raises(UsageError, match=r"is a link, which is not followed"):
        run.open({})
    run.close()
    assert outside.read_text() == "precious" and (out / name).is_symlink()


def test_a_folder_with_somebody_s_links_is_no_run_of_ours(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".run.json.partial").symlink_to(outside)
    run = RunFolder(tmp_path / "run")
    with pytest.raises(UsageError, match="no run of ours"):
        run.open({})
    run.close()
    assert outside.exists() and (tmp_path / "run" / ".run.json.partial").is_symlink()


def test_a_run_may_be_given_more_and_nothing_else(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.open({"epochs": 2, "seed": 0, "max_minutes": 1})
    requested = {"epochs": 2, "seed": 0, "max_minutes": 1}
    run.write("run.json", {"requested": requested, "data": {"fingerprint": "f"}, "started": "then"})
    run.close()
    for more in ({"epochs": 3}, {"max_minutes": None}, {"epochs": 5, "max_minutes": 2}):
        again = RunFolder(tmp_path / "run")
        again.open({"epochs": 2, "seed": 0, "max_minutes": 1, **more})
        assert again.extended
        again.close()
    for other in ({"epochs": 1}, {"seed": 1}, {"epochs": 3, "seed": 1}):
        again = RunFolder(tmp_path / "run")
        with pytest.raises(UsageError, match="name another folder"):
            again.open({"epochs": 2, "seed": 0, "max_minutes": 1, **other})
        again.close()
    assert free_folder(tmp_path / "run", {"epochs": 3, "seed": 0, "max_minutes": 1}).name == "run-2"


def test_a_finished_run_goes_on_for_more_steps_and_all_may_read_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train("vit_nano", "digits", out, **TINY)["steps"] == 2
    assert train("vit_nano", "digits", out, **{**TINY, "max_steps": 3})["steps"] == 3
    said = capsys.readouterr().err
    assert "was finished and goes on" in said and "resuming after step 2 of 3" in said
    assert (out / "report.html").exists()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*") if path.is_file()}
    assert modes == {0o666 & ~_umask()}
    answers = train("vit_nano", "digits", out, **{**TINY, "max_steps": 3})
    assert answers["steps"] == 3 and "is finished already" in capsys.readouterr().err


def _umask() -> int:
    import os

    before = os.umask(0o022)
    os.umask(before)
    return before


def test_a_run_that_is_not_finished_answers_by_its_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Job, "predictions", stop)  # before anything is evaluated
        train("vit_nano", "digits", tmp_path / "run", **TINY)
    assert not (tmp_path / "run" / "model").exists()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Job, "finish", stop)
        train("vit_nano", "digits", tmp_path / "run", **TINY)
    Image.new("L", (8, 8), 128).save(tmp_path / "a.png")
    capsys.readouterr()
    assert orchard("predict", tmp_path / "run", tmp_path / "a.png", "--json") == 0
    said = capsys.readouterr()
    assert "run is not finished; this is by the best of its model so far" in said.err
    assert len(json.loads(said.out)[0]["top"]) == 5


def test_what_is_not_a_number_is_never_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Job, "evaluate", lambda self, model: {"loss": math.nan, "accuracy": math.nan})
        with pytest.raises(OrchardError, match="no validation gave a number for the accuracy"):
            train("vit_nano", "digits", tmp_path / "run", **TINY)
    assert not (tmp_path / "run" / "model").exists() and not list((tmp_path / "run").glob("best/*"))


def test_a_setting_given_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "vit_nano", "--data", "digits", "--out", tmp_path / "run"]
    assert orchard(*words, "--set", "epochs=2", "--epochs", "3") == 2
    assert "epochs is given twice" in capsys.readouterr().err
    assert orchard(*words, "--set", "lr=2", "--set", "lr=3") == 2
    assert "--set lr is given twice" in capsys.readouterr().err


def test_a_full_disk_under_tensorboard_is_an_error_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(tmp_path / "board", 1)
    monkeypatch.setattr(board._records, "_writer", Path("/dev/full").open("wb", buffering=0))  # noqa: SIM115
    with pytest.raises(OSError, match="No space left"):
        board.log({"loss/train": 1.0}, 1)
    board.close(finished=False)


def test_tensorboard_reads_what_we_write(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    board = Board(tmp_path / "board", 5)
    board.log({"loss/train": 0.5}, 7)
    board.close(finished=True)
    (file,) = (tmp_path / "board").iterdir()
    start, restart, scalar = EventFileLoader(str(file)).Load()
    assert start.file_version == "brain.Event:2" and restart.step == 5
    assert scalar.step == 7 and scalar.summary.value[0].tag == "loss/train"
