"""Every command of the README, run as it stands there, on pictures made here.

Only the times differ: trainings are cut short by settings added at the end, the digit scenes are few, and `bench`,
whose figures are recorded in docs/benchmarks.md with the commands that gave them, is not timed here.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import orchard
from PIL import Image

from orchard.data.boxes import named
from orchard.models import create_model
from orchard.weights.official import export_official

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHORTER = {"train": "--epochs 1 --set max_steps=4", "compare": "--epochs 1 --set max_steps=2 --out compared"}
JUDGED_BY_FEW = "--set generation.samples=16"  # images that are compared, out of noise
FEW_GAMES = "--set self_play.games=4 --set self_play.simulations=4 --set evaluation.games=2"
FEW_SCENES = {"train": 64, "validation": 8, "test": 8}


def commands() -> list[tuple[str, str]]:
    """Every command, and what the README says of it."""
    lines = re.findall(r"^orchard .*$", README, re.MULTILINE)
    return [(found[0], found[-1]) for found in (re.split(r"\s{2,}", line) for line in lines)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README speaks of: photos/ of two classes, a cat, a holiday, an official checkpoint."""
    folder = tmp_path_factory.mktemp("readme")
    chance = np.random.default_rng(0)
    for name, colour in (("warm", (200, 90, 40)), ("cold", (40, 90, 200))):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(24):
            pixels = np.clip(chance.normal(colour, 30, (40, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.jpg")
    (folder / "holiday").mkdir()
    Image.new("RGB", (50, 60), (210, 80, 30)).save(folder / "cat.jpg")
    Image.new("RGB", (80, 60), (30, 80, 210)).save(folder / "holiday" / "sea.png")
    official = export_official(create_model("vit_tiny_patch16_224"), source="google")
    np.savez(folder / "Ti_16.npz", **{name: tensor.numpy() for name, tensor in official.items()})
    Image.new("L", (8, 8), 100).save(folder / "scan.png")
    Image.new("L", (16, 8), 60).save(folder / "top_half.png")
    (folder / "prompts.tsv").write_text("1\tthe digit seven\n2\tthe number two\n")
    (folder / "FOLDER").mkdir()  # of Multi30k, as it is distributed
    for split, count in (("train", 60), ("val", 6), ("test_2016_flickr", 6)):
        for language, words in (
            ("de", ("Ein Hund", "Zwei Kinder", "laufen im Park")),
            ("en", ("A dog", "Two children", "run")),
        ):
            lines = [f"{words[n % 2]} {words[2]} {n}.\n" for n in range(count)]
            (folder / "FOLDER" / f"{split}.{language}").write_text("".join(lines))
    reviews = [f"{word} number {n},{label}" for n in range(30) for word, label in (("fine", "good"), ("dull", "bad"))]
    (folder / "reviews.csv").write_text("review,label\n" + "\n".join(reviews) + "\n")
    (folder / "more.csv").write_text("review\na dull film\n")
    (folder / "book.txt").write_text("Once upon a time there was a tree, and the tree bore fruit. " * 200)
    return folder


def test_the_readme_speaks_of_every_command() -> None:
    helped = subprocess.run([sys.executable, "-m", "orchard.cli.main", "--help"], capture_output=True, text=True).stdout
    verbs = set(re.findall(r"^  (\w+)  ", helped, re.MULTILINE))
    assert {line.split()[1] for line, _ in commands()} == verbs


def test_the_commands_of_the_readme_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORCHARD_CACHE", str(place / "cache"))
    monkeypatch.setattr(named, "SIZES", FEW_SCENES)
    monkeypatch.setattr("sys.stdin", io.StringIO())  # nobody there who plays
    monkeypatch.chdir(place)
    for line, comment in commands():
        verb = line.split()[1]
        if verb == "bench":  # recorded in docs/benchmarks.md
            continue
        out = "--out RUN" if verb == "train" and "--out" not in line else ""
        fewer = JUDGED_BY_FEW if "generate images with a" in comment else ""
        fewer = FEW_GAMES if "learn a game" in comment else fewer
        words = shlex.split(f"{line} {SHORTER.get(verb, '')} {fewer} {out}")[1:]
        code = orchard(*words)
        assert code == 0, f"{line}\n{capfd.readouterr().err}"
        torch.set_num_threads(1)  # a training has set its own number
    assert (place / "seen.png").stat().st_size > 1000
    assert "<html" in (place / "RUN" / "report.html").read_text()
    assert len(list((place / "sevens").glob("*.png"))) >= 4
    assert len((place / "painted.tsv").read_text().splitlines()) >= 2
    answers = (place / "answers.csv").read_text().splitlines()
    assert len(answers) == 3
    assert "warm" in answers[1]
    assert "cold" in answers[2]


def test_the_python_of_the_readme_runs(place: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code) == 2
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ORCHARD_CACHE": str(place / "cache")}
    program = "\n".join(code).replace("epochs=5", "epochs=1, max_steps=2") + "\nprint(len(answers))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=place, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "1"


def test_an_installation_holds_all_files_of_the_package() -> None:
    package = ROOT / "src" / "orchard"
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["orchard"]
    packed = {path for pattern in patterns for path in package.glob(pattern)}
    there = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert there == packed
