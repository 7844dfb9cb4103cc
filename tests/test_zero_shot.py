"""A CLIP asked on the command line: classes by their names, and pictures for a text."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import orchard
from PIL import Image

from orchard.app.pipeline import pipeline
from orchard.data.contracts import Preprocess
from orchard.data.tokenizers import Characters
from orchard.errors import UsageError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.tasks.image_classification.pipeline import ImageClassifier
from orchard.tasks.zero_shot_image_classification import TASK
from orchard.tasks.zero_shot_image_classification.matcher import encoder_of, load_matcher
from orchard.tasks.zero_shot_image_classification.objective import ImageText, PairBatch
from orchard.tasks.zero_shot_image_classification.pipeline import TEMPLATES, search, templates_for, with_labels
from orchard.weights.portable import Portable, architecture_of, save_portable

SHADES = {"black": 0, "grey": 128, "white": 255}
PREPROCESS = Preprocess((28, 28), 1, (0.5,), (0.5,), crop=0.875)
SIZE: dict[str, Any] = dict(vision_width=16, vision_depth=1, vision_heads=2, text_width=16, text_depth=1, text_heads=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows three shades of grey and their names."""
    folder = tmp_path_factory.mktemp("shades")
    tokenizer = Characters.of("".join(SHADES))
    torch.manual_seed(0)
    model = create_model("clip_nano", vocabulary=tokenizer.vocabulary + 2, context=8, **SIZE)
    levels = torch.tensor(list(SHADES.values()), dtype=torch.uint8)
    images = PREPROCESS.normalise(levels[:, None, None, None].expand(-1, 1, 28, 28).clone())
    encode = encoder_of(tokenizer, 8)
    batch = PairBatch(images, torch.stack([encode(name) for name in SHADES]), torch.arange(3))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss, _ = ImageText().loss(model.train(), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    about = Portable(
        "clip_nano",
        architecture_of(model),
        TASK.name,
        preprocess=PREPROCESS.to_json(),
        facts={"templates": ["{}"]},
    )
    save_portable(folder, model, about)
    tokenizer.save(folder / "text_tokenizer")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name, level in SHADES.items():
        Image.new("RGB", (60, 40), (level, level, level)).save(folder / f"{name}.png")
    (folder / "none.png").write_bytes(b"no picture")
    return folder


def command(*words: object) -> int:
    return orchard("predict", *words)


LABELS = [word for name in SHADES for word in ("--labels", name)]


def test_classes_are_made_of_their_names(run: Path, pictures: Path) -> None:
    predictor = ImageClassifier(with_labels(load(run), ("white", "black")))
    answers = {Path(answer.picture).stem: answer for answer in predictor(pictures, top=5)}
    assert answers["white"].top[0][0] == "white" and answers["black"].top[0][0] == "black"
    assert sum(p for _, p in answers["grey"].top) == pytest.approx(1)
    assert "not a picture" in answers["none"].error
    matcher = load_matcher(run)
    squares = torch.full((1, 1, 28, 28), 128, dtype=torch.uint8)
    expected = matcher.classify(squares, ("white", "black"), ("{}",))[0]
    found = dict(answers["grey"].top)
    assert [found["white"], found["black"]] == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_search_gives_the_best_pictures_and_those_that_cannot_be_read(run: Path, pictures: Path) -> None:
    paths = sorted(str(path) for path in pictures.iterdir())
    for name in SHADES:
        best, broken = search(load(run), paths, name, top=1)
        assert Path(best.picture).stem == name and -1 <= best.cosine <= 1 + 1e-6
        assert Path(broken.picture).stem == "none" and broken.error
    cosines = [hit.cosine for hit in search(load(run), paths, "grey", top=5) if not hit.error]
    assert len(cosines) == 3 and cosines == sorted(cosines, reverse=True)


def test_templates_are_those_that_were_learned_else_by_language(run: Path) -> None:
    loaded = load(run)
    assert templates_for(loaded, ["a cat"]) == ("{}",)
    other = dataclasses.replace(loaded, facts={})
    assert templates_for(other, ["a cat"]) == TEMPLATES["en"]
    assert templates_for(other, ["一只猫", "a dog"]) == TEMPLATES["zh"]
    assert all("{}" in template for templates in TEMPLATES.values() for template in templates)


@pytest.mark.parametrize("labels", [(), ("black",), ("black", "black"), ("black", " ")])
def test_labels_that_are_no_choice_are_refused(run: Path, labels: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="name two or more different ones, --labels 'a cat'"):
        with_labels(load(run), labels)


def test_the_command_answers_as_table_json_and_csv(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # so that no path is broken over lines
    good = [pictures / f"{name}.png" for name in SHADES]
    assert command(run, *good, *LABELS, "--json", "--top", 2) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["top"][0]["class"] for row in rows] == list(SHADES) and len(rows[0]["top"]) == 2

    assert command(run, pictures, "--query", "white", "--top", 2, "--json") == 1
    out = capsys.readouterr()
    rows = json.loads(out.out)
    assert Path(rows[0]["picture"]).stem == "white" and "cosine" in rows[1] and "error" in rows[2]
    assert "1 of 3 could not be answered" in out.err

    assert command(run, *good, "--query", "black", "--csv", tmp_path / "found.csv") == 0
    with (tmp_path / "found.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert Path(lines[0]["picture"]).stem == "black" and len(lines) == 3 and float(lines[0]["cosine"]) <= 1 + 1e-6

    assert command(run, *good, "--query", "grey") == 0
    assert "grey.png" in capsys.readouterr().out


def test_the_command_refuses_what_cannot_be_asked(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(run, pictures) == 2
    assert "has no classes of its own" in capsys.readouterr().err
    assert command(run, pictures, *LABELS, "--query", "white") == 2
    assert "give one of them" in capsys.readouterr().err
    model = create_model("lenet5", num_classes=2)
    table = {"size": (32, 32), "channels": 1, "mean": (0.5,), "std": (0.5,)}
    about = Portable("lenet5", architecture_of(model), "image-classification", ("a", "b"), table)
    save_portable(tmp_path / "lenet", model, about)
    for words in (LABELS, ["--query", "white"]):
        assert command(tmp_path / "lenet", pictures, *words) == 2
        assert "No such option" in capsys.readouterr().err


def test_as_a_pipeline(run: Path, pictures: Path) -> None:
    chosen = pipeline("zero-shot-image-classification", run, labels=list(SHADES))
    paths = [str(pictures / f"{name}.png") for name in SHADES]
    assert [answer.top[0][0] for answer in chosen(paths)] == list(SHADES)
    with pytest.raises(UsageError, match="name two or more"):
        pipeline(run, labels=["black"])


def test_what_is_cut_is_said_and_an_empty_query_is_refused(
    run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(run, pictures / "white.png", "--query", "whitewhite") == 0
    assert "1 of 1 queries are longer than 6 tokens and are cut; the longest has 10" in capsys.readouterr().err
    assert command(run, pictures / "white.png", "--labels", "white", "--labels", "blackblack") == 0
    assert "1 of 2 sentences around labels are longer than 6 tokens" in capsys.readouterr().err
    assert command(run, pictures / "white.png", *LABELS) == 0
    assert "longer than" not in capsys.readouterr().err
    assert command(run, pictures / "white.png", "--query", "  ") == 2
    assert "a sentence is empty" in capsys.readouterr().err
