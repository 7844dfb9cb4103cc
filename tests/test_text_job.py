"""Training language models: a run of each kind of tokenizer, taken up again, gone on from, and report_split."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from safetensors.torch import load_file

from orchard.app.train import train
from orchard.data.settings import CaptionSource
from orchard.data.tokenizers import load_tokenizer
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load
from orchard.inference.sampling import Sampling
from orchard.tasks.text_generation import job as text_generation
from orchard.tasks.text_generation.pipeline import TextGenerator
from orchard.training.loop import Trainer
from orchard.training.state import Interrupted

SMALL: dict[str, Any] = {
    "architecture.width": 16,
    "architecture.depth": 1,
    "architecture.heads": 2,
    "architecture.context": 16,
    "architecture.dropout": 0.0,
    "batch_size": 8,
    "epochs": 2,
    "optimizer.lr": 1e-2,
    "log_every": 4,
    "text.tokenizer": "characters",
}
WORDS = ("the cat sat on the mat, and the dog ran to the cat; ", "a dog <b>& a cat</b> sat by the sea.\n")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text("".join(WORDS[n % 7 == 3] for n in range(60)))
    return path


@pytest.fixture(scope="module")
def whole(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    train("gpt2_nano", str(text), out, **{**SMALL, "epochs": 8, "architecture.dropout": 0.1})
    return out


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def test_a_run_learns_and_says_what_it_learned(whole: Path) -> None:
    metrics = json.loads((whole / "metrics.json").read_text())
    facts = json.loads((whole / "run.json").read_text())["data"]
    config = json.loads((whole / "model" / "config.json").read_text())
    test = metrics["test"]
    assert test["loss"] < 2.2 < math.log(facts["tokenizer"]["vocabulary"])
    assert test["perplexity"] == pytest.approx(math.exp(test["loss"]))
    nats = test["loss"] * (facts["counts"]["test"] - 1)
    assert test["bits_per_byte"] == pytest.approx(nats / math.log(2) / facts["bytes"]["test"])
    assert metrics["tokens_per_second"] > 0 and metrics["macs"] > 0
    tokenizer = load_tokenizer(whole / "model" / "text_tokenizer")
    assert config["facts"]["text_tokenizer"] == tokenizer.fingerprint == facts["tokenizer"]["fingerprint"]
    assert config["architecture"]["vocabulary"] == tokenizer.vocabulary
    assert "the" in TextGenerator(whole)("the cat", length=60, sampling=Sampling(temperature=0))[0]


def test_the_report_is_well_formed_and_shows_what_it_should(whole: Path) -> None:
    page = (whole / "report.html").read_text()
    body = page[page.index("<body>") : page.index("</body>")] + "</body>"
    root = ElementTree.fromstring(body.replace("&nbsp;", " "))
    identifiers = {element.get("id") for element in root.iter()}
    assert {"curves", "samples", "surprises", "tokens", "settings", "details"} <= identifiers
    assert "&lt;</span>" in body and "color-mix" in body
    assert "bits per byte" in body


def test_a_run_that_was_stopped_ends_in_the_same_bits(
    whole: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    settings = {**SMALL, "epochs": 8, "architecture.dropout": 0.1, "checkpoint_steps": 5, "checkpoint_minutes": 0}
    step = Trainer.step

    def stop(self: Trainer, batches: Any) -> None:
        if self.state.step == 12:
            raise Interrupted("here")
        step(self, batches)

    monkeypatch.setattr(Trainer, "step", stop)
    with pytest.raises(Interrupted):
        train("gpt2_nano", str(text), out, **settings)
    monkeypatch.undo()
    train("gpt2_nano", str(text), out, **settings)
    expected, found = weights(whole), weights(out)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe", "chinese"])
def test_every_tokenizer_learns(tokenizer: str, text: Path, tmp_path: Path) -> None:
    changes = {"text.tokenizer": tokenizer, "text.vocabulary": 270, "max_steps": 2}
    metrics = train("gpt2_nano", str(text), tmp_path / "run", **{**SMALL, **changes})
    assert metrics["steps"] == 2
    assert TextGenerator(tmp_path / "run")("the", length=3, sampling=Sampling()) is not None


def test_several_documents_have_a_sign_between_them(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"{name} text of its own. " * 40)
    metrics = train("gpt2_nano", str(tmp_path), tmp_path / "run", **{**SMALL, "max_steps": 2})
    assert metrics["steps"] == 2
    assert load_tokenizer(tmp_path / "run" / "model" / "text_tokenizer").specials.keys() == {"end", "unknown"}
    assert TextGenerator(tmp_path / "run")("", length=3, sampling=Sampling())


def test_accumulating_learns_the_same(text: Path, tmp_path: Path) -> None:
    for parts in (1, 4):
        train("gpt2_nano", str(text), tmp_path / str(parts), **{**SMALL, "max_steps": 4, "accumulate": parts})
    one, four = weights(tmp_path / "1"), weights(tmp_path / "4")
    for name in one:
        torch.testing.assert_close(one[name], four[name], rtol=1e-3, atol=1e-4)


def test_going_on_keeps_the_tokenizer_and_may_see_less(whole: Path, text: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("the sea and the dog. " * 40)
    settings = {key: value for key, value in SMALL.items() if not key.startswith(("architecture", "text"))}
    settings |= {"start_from": str(whole), "architecture.context": 12, "max_steps": 1, "optimizer.lr": 1e-9}
    train("gpt2_nano", str(other), tmp_path / "run", **settings)
    before, after = weights(whole), weights(tmp_path / "run")
    torch.testing.assert_close(after["position.weight"], before["position.weight"][:12])
    torch.testing.assert_close(after["token.weight"], before["token.weight"])
    kept, was = (load_tokenizer(run / "model" / "text_tokenizer").fingerprint for run in (tmp_path / "run", whole))
    assert kept == was


def test_a_trained_model_is_judged_on_other_text(whole: Path, text: Path) -> None:
    metrics = json.loads((whole / "metrics.json").read_text())
    found = text_generation.evaluate_loaded(load(whole), str(text), "test", CaptionSource(source=str(text)))
    assert found.pop("count") > 0
    assert found == pytest.approx(metrics["test"], rel=1e-5)
    with pytest.raises(UsageError, match="has no extra split; it has train, validation, test"):
        text_generation.evaluate_loaded(load(whole), str(text), "extra", CaptionSource(source=str(text)))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"architecture.vocabulary": 7}, UsageError, "architecture.vocabulary is 7, but the tokenizer has"),
        ({"architecture.context": 5000}, OrchardError, "or the model a shorter context"),
        (
            {"freeze_trunk": True},
            UsageError,
            "setting 'freeze_trunk' is for image-classification; gpt2_nano is for text-gen",
        ),
        ({"tokenizer": "bpe"}, UsageError, "setting 'tokenizer' is for text-to-image"),
        ({"text.files": ["vocab.json"]}, UsageError, "text.files has 1 files; characters takes none"),
        (
            {"text.tokenizer": "wordpiece", "text.files": ["a", "b"]},
            UsageError,
            "wordpiece takes one, BERT's vocab.txt",
        ),
        ({"text.tokenizer": "bpe", "text.files": ["a", "b"]}, UsageError, "there is no file 'a'"),
        ({"start_from": "."}, UsageError, "is neither a run nor a model's folder"),
    ],
)
def test_what_does_not_fit_is_refused(
    changes: dict[str, Any], error: type[Exception], words: str, text: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        train("gpt2_nano", str(text), tmp_path / "run", **{**SMALL, **changes})


def test_a_model_of_another_vocabulary_is_not_gone_on_with(whole: Path, text: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).write_bytes((whole / "model" / name).read_bytes())
    settings = {**SMALL, "start_from": str(model)}
    with pytest.raises(UsageError, match="nothing says how this model reads text"):
        train("gpt2_nano", str(text), tmp_path / "run", **settings)
    text_generation.train_bpe(["the cat"], 260).save(model / "text_tokenizer")
    with pytest.raises(OrchardError, match="goes on with the tokenizer it was trained with"):
        train("gpt2_nano", str(text), tmp_path / "run", **settings)
