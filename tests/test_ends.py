"""How a command ends, and what leaves it: exit codes, full disks, closed pipes, names that a terminal would obey."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import signal
import sys
import warnings
from pathlib import Path

import pytest
import typer
from commands import orchard
from rich.table import Table

from orchard.cli.output import emit, run_app, show_warning
from orchard.console import Console
from orchard.errors import OrchardError
from orchard.files import json_text, write_table
from orchard.terminal import note, plain

EVIL = "a\x1b]0;xb\u202ec\udce9[red]d[/red]\x9b"
SHOWN = r"a\x1b]0;xb\u202ec\udce9[red]d[/red]\x9b"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("orchard.app.train:train", ["train", "vit_nano", "--data", "digits"]),
        ("orchard.app.evaluate:evaluate", ["evaluate", "run", "--data", "digits"]),
        ("orchard.app.answer:answer", ["predict", "run", "a.png"]),
        ("orchard.app.answer:answer", ["generate", "run", "words"]),
        ("orchard.app.compare:compare", ["compare", "vit_nano", "--data", "digits"]),
        ("orchard.weights.proof:verify", ["verify", "vit_nano"]),
        ("orchard.data.check:check", ["data", "check", "digits"]),
        ("orchard.app.importing:import_checkpoint", ["import", "vit_nano", "a.pth", "--out", "b"]),
        ("orchard.app.export:export", ["export", "run"]),
    ],
)
def test_ctrl_c_is_130_and_said(
    place: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, _, name = place.partition(":")

    def work(*given: object, **more: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            if name == "evaluate":  # a library may make an error of its own of it
                raise RuntimeError("callback failed") from None
            raise

    monkeypatch.setattr(importlib.import_module(module), name, work)
    assert orchard(*words) == 130
    assert capsys.readouterr().err == "stopped\n"


def ends(work: object, monkeypatch: pytest.MonkeyPatch) -> int:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(work)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "argv", ["orchard"])
    return run_app(app, debug=False)


@pytest.mark.parametrize("as_json", [True, False])
def test_a_full_disk_behind_stdout_is_one_line(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        monkeypatch.setattr(sys, "stdout", Path("/dev/full").open("w"))  # noqa: SIM115
        emit({"a": 1}, as_json, lambda value: Console().print(str(value)))

    assert ends(work, monkeypatch) == 1
    assert (
        capsys.readouterr().err == "error: cannot write the answer: No space left on device; make room and try again\n"
    )


@pytest.mark.parametrize("as_json", [True, False])
def test_a_closed_pipe_ends_quietly(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        reader, writer = os.pipe()
        os.close(reader)
        monkeypatch.setattr(sys, "stdout", os.fdopen(writer, "w"))
        emit({"a": 1}, as_json, lambda value: Console().print(str(value)))

    assert ends(work, monkeypatch) == 0
    assert capsys.readouterr().err == ""


def test_a_disk_that_is_full_at_the_end_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "mosaic.png").write_text("before")
    (tmp_path / "index.md").write_text("before")
    monkeypatch.setattr("orchard.weights.proof.verify", lambda *_: [])
    monkeypatch.setattr("orchard.files.os.fsync", full)
    for words in (
        ["data", "check", "digits", "--mosaic", tmp_path / "mosaic.png"],
        ["verify", "--all", "--write", tmp_path],
    ):
        assert orchard(*words) == 1
        said = capsys.readouterr().err.splitlines()
        assert str(tmp_path) in said[-1] and "No space left on device" in said[-1]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "mosaic.png": "before",
        "index.md": "before",
    }


def test_work_goes_on_when_nobody_reads_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Path("/dev/full").open("w", buffering=1))  # noqa: SIM115
    note("nobody reads this")
    with pytest.raises(OSError, match="No space left"):
        sys.stderr.write("nor this\n")


def test_what_a_name_would_do_to_a_terminal_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert plain(EVIL) == SHOWN
    note(EVIL)
    assert capsys.readouterr().err == SHOWN + "\n"
    file = io.StringIO()
    table = Table(EVIL)
    table.add_row(EVIL)
    for console in (Console(file=file, width=200), Console(file=file, width=200, force_terminal=True)):
        console.print(EVIL, table)
    assert file.getvalue().count(SHOWN) == 6
    assert "\x1b]" not in file.getvalue() and "\x9b" not in file.getvalue()
    text = json_text({EVIL: EVIL})
    assert text.isprintable() and json.loads(text) == {EVIL: EVIL}


def test_json_is_json_whatever_the_numbers_are() -> None:
    assert (
        json_text({"loss": float("nan"), "all": [float("inf"), 1.5, (2,)]}) == '{"loss": null, "all": [null, 1.5, [2]]}'
    )


def test_a_spreadsheet_runs_no_cell(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", [["=cmd|' /C calc'!A0", "-x.png", "@a", "+1-1", "-0.5", "1e-3", "cat", 3]])
    assert (tmp_path / "a.csv").read_text() == "'=cmd|' /C calc'!A0,'-x.png,'@a,'+1-1,-0.5,1e-3,cat,3\n"


def test_a_name_with_markup_ends_no_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from orchard.cli.train import show_figures

    figures = {"accuracy": 0.5}
    show_figures({"model": "m", "data": "[/red]", "test": figures, "run": "o[/red]"})
    assert "o[/red]/report.html" in capsys.readouterr().out


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_table(path, [["old"]])

    def rows() -> object:
        yield ["new"]
        raise OSError(28, "No space left on device")

    with pytest.raises(
        OrchardError, match=r"cannot write .*a\.csv: No space left on device; nothing of it was changed"
    ):
        write_table(path, rows())  # type: ignore[arg-type]
    assert path.read_text() == "old\n"
    assert [one.name for one in tmp_path.iterdir()] == ["a.csv"]


def test_a_library_s_warning_is_one_line_without_its_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", show_warning)
        warnings.warn("Truncated File Read\n  of a tag", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: Truncated File Read of a tag\n"


def test_models_of_other_libraries_are_named_or_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    near, no_card = "unknown timm model 'resnt18'; did you mean resnet18", "is another library's model, which can be"
    train = ["--data", "digits", "--epochs", "1"]
    asked = {
        ("train", "timm:resnt18", *train): near,
        ("train", "timm:resnet18.a1_in1kk", *train): "did you mean resnet18.a1_in1k",
        ("compare", "vit_nano", "timm:resnt18", *train): near,
        ("show", "timm:resnt18"): near,
        ("show", "timm:resnet18"): no_card,
        ("verify", "timm:resnet18"): no_card,
        ("bench", "timm:resnet18", "--against", "timm"): no_card,
        ("train", "timm:../../x", *train): "is no name of a timm model",
        ("show", "timm:../../x"): "is no name of a timm model",
    }
    for words, expected in asked.items():
        assert orchard(*words) == 2, words
        *before, said = capsys.readouterr().err.splitlines()
        assert expected in said and "unknown model" not in said and not any("error" in line for line in before), words
    assert not list(tmp_path.iterdir())  # nothing was begun
    assert orchard("data", "check", "digits", "--model", "timm:resnet18") == 0
