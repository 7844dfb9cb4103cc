"""Vectors of texts, sentences that are compared, and classes by entailment, by one small BERT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import orchard
from safetensors.torch import load_file
from stopping import stopped_after

from orchard.app.evaluate import evaluate
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.errors import UsageError
from orchard.tasks.registry import task_learned

SMALL: dict[str, Any] = {
    "epochs": 12, "batch_size": 16, "log_every": 5, "optimizer.lr": 3e-3, "text.tokenizer": "words", "text.length": 24,
    "architecture": {"width": 32, "depth": 1, "heads": 2, "hidden": 64},
}  # fmt: skip
THINGS = ("dog", "cat", "car", "tree")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs with a score: 5 for the same thing, 1 for another."""
    rows = [f"a {a} runs {n},the {b} number {n},{5 if a == b else 1}"
            for n in range(40) for a in THINGS for b in (a, THINGS[(THINGS.index(a) + 1 + n % 3) % 4])]  # fmt: skip
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    path.write_text("sentence1,sentence2,score\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def similar(pairs: Path) -> Path:
    train("bert_nano", str(pairs), pairs.parent / "run", task="sentence-similarity", **SMALL)
    return pairs.parent / "run"


def test_sentences_learn_to_be_near(similar: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = json.loads((similar / "metrics.json").read_text())
    assert metrics["task"] == "sentence-similarity" and metrics["test"]["spearman"] > 0.6
    assert "Pairs furthest off" in (similar / "report.html").read_text()
    near, far = pipeline(similar)("a dog runs 3", ["the dog number 4", "the tree number 4"])
    assert near > far
    assert (
        orchard("predict", similar, "a cat runs 1", "the car number 1", "the cat number 2", "--top", 1, "--json") == 0
    )
    (found,) = json.loads(capsys.readouterr().out)
    assert found["sentence"] == "the cat number 2"
    assert orchard("predict", similar, "alone") == 2 and "a sentence and others" in capsys.readouterr().err
    assert evaluate(similar, str(pairs))["test"]["spearman"] > 0.6


def test_stopped_and_resumed_ends_in_the_same_bits(similar: Path, pairs: Path, tmp_path: Path) -> None:
    steps = json.loads((similar / "metrics.json").read_text())["steps"]
    with stopped_after(7, steps):
        train("bert_nano", str(pairs), tmp_path / "run", task="sentence-similarity", **SMALL)
    train("bert_nano", str(pairs), tmp_path / "run", task="sentence-similarity", **SMALL)
    before, after = (load_file(folder / "model" / "model.safetensors") for folder in (similar, tmp_path / "run"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_features_of_texts(similar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extract = pipeline("feature-extraction", similar)
    found = extract(["a dog runs 3", "a dog", "a dog runs 3"])
    assert found.shape == (3, 32) and np.allclose(found[0], found[2], atol=1e-5)
    texts = tmp_path / "texts.txt"
    texts.write_text("a dog\n\na cat runs\n")
    out = tmp_path / "features.npz"
    words = ("--task", "feature-extraction", "--data", texts, "--out", out, "--pooling", "mean")
    assert orchard("predict", similar, *words) == 0
    with np.load(out) as arrays:
        assert arrays["names"].tolist() == ["a dog", "a cat runs"] and arrays["features"].shape == (2, 32)
    assert "features of 2 texts" in capsys.readouterr().out
    labelled = tmp_path / "things.csv"
    labelled.write_text("text,label\n" + "".join(f"the {t} number {n},{t}\n" for n in range(12) for t in THINGS))
    probe = evaluate(similar, str(labelled), "validation", task="feature-extraction")
    assert probe["validation"]["accuracy"] > 0.4


def test_classes_by_entailment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three words in a row, across both texts, are all that has to be known."""
    rows = [f"{n} runs the {a},{b} is meant,{'entailment' if a == b else 'contradiction'}"
            for n in range(24) for a in THINGS for b in (a, THINGS[(THINGS.index(a) + 1 + n % 3) % 4])]  # fmt: skip
    path, run, template = tmp_path / "nli.csv", tmp_path / "run", "{} is meant"
    path.write_text("premise,hypothesis,label\n" + "\n".join(rows) + "\n")
    settings = {"epochs": 12, "batch_size": 16, "optimizer.lr": 2e-2, "architecture": {"ngrams": 3, "dropout": 0.0}}
    assert train("fasttext_nano", str(path), run, **settings)["test"]["accuracy"] > 0.9
    words = ("--task", "zero-shot-classification", "--labels", "dog", "--labels", "car", "--template", template)
    assert orchard("predict", run, "2 runs the car", *words, "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert [one["class"] for one in found["top"]] == ["car", "dog"]
    assert sum(one["probability"] for one in found["top"]) == pytest.approx(1)
    ask = pipeline("zero-shot-classification", run)
    several = ask("2 runs the car", ["dog", "car"], template, several=True)[0]
    assert several.top[0][0] == "car" and several.top[0][1] > 0.5 > several.top[1][1]
    with pytest.raises(UsageError, match="name two classes or more"):
        ask("a car", ["dog"])
    with pytest.raises(UsageError, match=r"no \{\} where the class stands"):
        ask("a car", ["dog", "cat"], "about it")
    labelled = tmp_path / "things.csv"
    labelled.write_text("text,label\n" + "".join(f"{n} runs the {t},{t}\n" for n in range(12) for t in THINGS))
    judged = {"evaluation.template": template}
    assert evaluate(run, str(labelled), settings=judged, task="zero-shot-classification")["test"]["accuracy"] > 0.9


def test_the_data_say_what_is_learned(pairs: Path, similar: Path) -> None:
    assert task_learned("bert_nano", str(pairs)).name == "text-classification"
    assert task_learned("bert_nano", "no/such/place").name == "fill-mask"
    assert task_learned("bert_nano", str(pairs), "sentence-similarity").name == "sentence-similarity"
    with pytest.raises(UsageError, match="bert_nano does not learn image-classification; it learns fill-mask"):
        task_learned("bert_nano", str(pairs), "image-classification")
    with pytest.raises(UsageError, match="is for sentence-similarity, not for zero-shot"):
        pipeline("zero-shot-classification", similar)
