"""`orchard generate`: pictures in folders, tables, JSON, and what a person sees of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import orchard
from painters import save_painter
from PIL import Image
from rich.console import Console

from orchard.tasks.text_to_image.canvas import Canvas, half_blocks
from orchard.tasks.text_to_image.preview import Progress


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save_painter(folder / "model")
    return folder


def test_pictures_and_a_sheet(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("generate", run, "a red apple", "--count", 3, "--seed", 1, "--out", tmp_path / "new", "--json")
    assert orchard(*words) == 0
    said = capsys.readouterr()
    (answer,) = json.loads(said.out)
    assert "painted 3 of 3: a red apple" in said.err
    assert [Path(file).name for file in answer["pictures"]] == ["0.png", "1.png", "2.png"]
    before = [Path(file).read_bytes() for file in (*answer["pictures"], answer["sheet"])]
    assert orchard(*words) == 2  # what an earlier call made stays
    assert "new holds 0.png of an earlier call; name another folder with --out" in capsys.readouterr().err
    assert orchard(*words[:-2], tmp_path / "again", "--json") == 0
    files = [*answer["pictures"], answer["sheet"]]
    assert [(tmp_path / "again" / Path(file).name).read_bytes() for file in files] == before
    with Image.open(answer["sheet"]) as sheet:
        assert sheet.text["prompt"] == "a red apple"  # type: ignore[attr-defined]


def test_several_prompts_have_a_folder_each(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert orchard("generate", run, "一只俏皮的狗", "a red/apple") == 0
    names = sorted(path.name for path in (tmp_path / "painted").iterdir())
    assert names[0].startswith("a-red-apple-") and names[1].startswith("一只俏皮的狗-")
    assert all((tmp_path / "painted" / name / "0.png").is_file() for name in names)
    assert orchard("generate", run, "a red/apple") == 0
    assert (tmp_path / "painted" / f"{names[0]}-2" / "0.png").is_file()


def test_a_table(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts.tsv").write_text("idx\ttext\n7\ta red apple\n8\tthe digit\n", encoding="utf-8")
    out = tmp_path / "painted.tsv"
    for new in (2, 0):
        assert orchard("generate", run, "--data", tmp_path / "prompts.tsv", "--out", out, "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"table": str(out), "rows": 2, "new": new}
    assert [row.split("\t")[:2] for row in out.read_text().splitlines()] == [["7", "a red apple"], ["8", "the digit"]]


def test_a_picture_is_completed(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (16, 8), "red").save(tmp_path / "top.png")
    words = ("generate", run, "--complete", tmp_path / "top.png", "--out", tmp_path / "new", "--json")
    assert orchard(*words, "--text", "a red apple") == 0
    with Image.open(json.loads(capsys.readouterr().out)[0]["pictures"][0]) as picture:
        assert picture.text["completed"] == "8 codes given"  # type: ignore[attr-defined]
    assert orchard(*words) == 2
    assert "nothing is asked for" in capsys.readouterr().err


@pytest.mark.parametrize("words, message", [
    ((), "nothing is asked for"),
    (("a", "--length", "3"), "No such option: --length"),
    (("a", "--stop", "b"), "No such option: --stop"),
    (("a", "--temperature", "-1"), "option '--temperature': input should be greater than or equal to 0, got -1.0"),
    (("a", "b", "--complete", "x.png"), "--complete takes one prompt, got 2"),
    (("a", "--data", "x.tsv"), "--data brings its own prompts"),
    (("",), "prompt 1 is empty"),
    (("a", "--clip", "nowhere"), "nowhere is neither a run nor a model's folder"),
])  # fmt: skip
def test_wrong_calls_get_one_line(
    run: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert orchard("generate", run, *words) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert not said.out


def test_options_over_what_is_usual() -> None:
    from orchard.inference.sampling import Sampling, sampling_from
    from orchard.tasks.text_to_image.settings import Options

    usual = Sampling(top_k=100)
    assert sampling_from(usual, Options(top_p=0.9)) == Sampling(top_k=100, top_p=0.9)
    assert sampling_from(usual, Options(top_k=0, temperature=0.5)) == Sampling(temperature=0.5)


def test_previews_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    picture = Image.fromarray(np.array([[0, 255], [255, 0], [9, 9]], np.uint8))
    text = half_blocks(picture)
    assert text.plain == "▀▀\n▀▀"
    assert [span.style for span in text.spans] == [
        "#000000 on #ffffff", "#ffffff on #000000", "#090909 on default", "#090909 on default",
    ]  # fmt: skip
    assert half_blocks(Image.new("RGB", (200, 100))).plain.count("\n") == 4  # 20 x 10 pixels
    growth: dict[str, Any] = {"first": 0, "count": 2, "of": 4}
    canvas = Canvas(["a red apple", "the digit"])
    canvas.console = Console(force_terminal=True, width=60, file=sys.stderr)
    from rich.live import Live

    canvas.live = Live(console=canvas.console, auto_refresh=False)
    canvas.watch(Progress(told=1, previews=[picture, picture], **growth))
    canvas.watch(Progress(told=2, previews=None, **growth))
    canvas.console.print(canvas.live.renderable)
    shown = capsys.readouterr().err
    assert "pictures 1 to 2 of 2" in shown
    assert "▀" in shown and "a red apple" in shown
