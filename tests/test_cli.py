"""The command line: answers on stdout, words on stderr, honest exit codes, and nothing heavy where it is not needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchard import cards


def orchard(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "orchard.cli.main", *words], capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize("words", [["--help"], ["list"], ["list", "--json"], ["show", "vit_base_patch16_224"]])
def test_looking_things_up_does_not_import_torch(words: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['orchard', *sys.argv[1:]]\n"
        "from orchard.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code in (0, None), end.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_json_is_one_value_and_nothing_else() -> None:
    rows = json.loads(orchard("list", "--json").stdout)
    assert {"name", "year", "task", "parameters", "proof"} <= set(rows[0])
    assert "vit_nano" in {row["name"] for row in rows}
    card = json.loads(orchard("show", "vit_nano", "--json").stdout)
    assert card["year"] == 2020


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["show", "vit_bsae_patch16_224"], 2, "did you mean vit_base_patch16_224"),
        (["train", "resnet5O", "--data", "digits"], 2, "or resnet50"),
        (["train", "vit_nano", "--data", "digits", "--set", "optimizer.lrr=1"], 2, "did you mean optimizer.lr"),
        (["train", "vit_nano", "--data", "digits", "--set", "lr"], 2, "expected key=value"),
        (["train", "vit_nano"], 2, "data"),
        (["train", "vit_nano", "--data", "digits", "--set", "architecture.widht=3"], 2, "did you mean width"),
        (["train", "vit_nano", "--data", "digits", "--set", "image_size=30"], 2, "does not divide into patches"),
        (["evaluate", "nowhere", "--data", "digits"], 2, "nowhere is neither a run nor"),
        (["predict", "nowhere", "a.png"], 2, "nowhere is neither a run nor"),
        (["predict", "--top", "3", "nowhere", "a.png"], 2, "nowhere is neither a run nor"),
    ],
)
def test_a_wrong_call_is_answered_in_a_line_or_two(words: list[str], code: int, expected: str, tmp_path: Path) -> None:
    done = orchard(*words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert done.stdout == ""
    assert not list(tmp_path.iterdir()), "a wrong call left something behind"


def test_the_package_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "orchard", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("orchard ")


def test_what_an_answer_needs_imports_neither_torchvision_nor_the_compiler() -> None:
    code = (
        "import sys, orchard.inference.loading, orchard.tasks.image_classification.pipeline\n"
        "import orchard.app.evaluate, orchard.tasks.image_classification.job, orchard.tasks.text_generation.job\n"
        "import orchard.tasks.text_generation.pipeline\n"
        "import orchard.models.vision.vit, orchard.models.vision.resnet, orchard.models.vision.mobilenetv2\n"
        "heavy = {'torchvision', 'torch._dynamo', 'torchmetrics', 'lightning_fabric', 'sklearn', 'scipy'}\n"
        "found = heavy & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_training_imports_no_more_than_it_needs() -> None:
    code = (
        "import sys, orchard.training.loop, orchard.tasks.image_classification.job\n"
        "heavy = {'torchvision', 'torchmetrics', 'transformers', 'sklearn', 'scipy'}\n"
        "found = heavy & set(sys.modules)\n"
        "assert not found, found\n"
        "from lightning_fabric.utilities.imports import _TORCHMETRICS_GREATER_EQUAL_1_0_0 as known\n"
        "assert known, 'Fabric takes torchmetrics for missing'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_cards_are_kept_parsed_and_read_again_when_they_or_what_is_kept_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards.all_cards.cache_clear()
    monkeypatch.setenv("ORCHARD_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cards"
    folder.mkdir()
    text = (cards.FOLDER / "lenet.toml").read_text()
    (folder / "lenet.toml").write_text(text)
    monkeypatch.setattr(cards, "FOLDER", folder)
    read = []
    parse = cards._parse
    monkeypatch.setattr(cards, "_parse", lambda path, text: read.append(path.name) or parse(path, text))

    def names() -> list[str]:
        cards.all_cards.cache_clear()
        return [card.label for card in cards.all_cards().values()]

    try:
        first = names()
        assert names() == first and read == ["lenet.toml"]
        (folder / "lenet.toml").write_text(text.replace(f'label = "{first[0]}"', 'label = "Another"'))
        assert names() == ["Another"] and len(read) == 2
        (tmp_path / "cache" / "cards" / "cards.json").write_text("{")
        assert names() == ["Another"] and len(read) == 3
    finally:
        cards.all_cards.cache_clear()
