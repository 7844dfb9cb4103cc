"""Training on text in pairs: a run learns, is resumed, evaluated, and answers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import orchard
from safetensors.torch import load_file

from orchard.app.evaluate import evaluate
from orchard.app.train import train
from orchard.errors import UsageError
from orchard.tasks.text2text_generation.objective import Text2Text, bleu
from orchard.tasks.text2text_generation.pipeline import Text2TextGenerator
from orchard.training.loop import Trainer
from orchard.training.state import Interrupted

WORDS = {"ein": "a", "hund": "dog", "läuft": "runs", "schnell": "fast", "rot": "red", "und": "and", "da": "there"}
SMALL: dict[str, Any] = {
    "batch_size": 16,
    "epochs": 6,
    "log_every": 5,
    "label_smoothing": 0.05,
    "optimizer.lr": 1e-2,
    "schedule.warmup_steps": 10,
    "text.tokenizer": "characters",
    "text.length": 40,
    "search.beam": 2,
}
SIZES = {
    "transformer_nano": {"width": 32, "depth": 1, "heads": 2, "hidden": 64, "dropout": 0.0},
    "rnnsearch_nano": {"width": 32, "embedding": 16, "alignment": 16, "maxout": 16},
    "luong_nano": {"width": 24, "embedding": 16, "dropout": 0.0},
}


def settings(name: str, **changes: Any) -> dict[str, Any]:
    return SMALL | {f"architecture.{key}": value for key, value in SIZES[name].items()} | changes


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of one to three words, translated word by word."""
    folder, drawn = tmp_path_factory.mktemp("pairs"), random.Random(0)
    for split, count in (("train", 160), ("valid", 12), ("test", 10)):
        lines = [[drawn.choice([*WORDS]) for _ in range(drawn.randint(1, 3))] for _ in range(count)]
        (folder / f"{split}.de").write_text("".join(" ".join(line) + "\n" for line in lines))
        (folder / f"{split}.en").write_text("".join(" ".join(WORDS[w] for w in line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def whole(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    train("transformer_nano", str(pairs), out, **settings("transformer_nano"))
    return out


def test_a_run_learns_and_says_what_it_learned(whole: Path, pairs: Path) -> None:
    metrics = json.loads((whole / "metrics.json").read_text())
    facts = json.loads((whole / "run.json").read_text())["data"]
    assert facts["languages"] == ["de", "en"] and facts["counts"] == {"train": 160, "validation": 12, "test": 10}
    assert facts["tokenizer"]["specials"].keys() == {"pad", "begin", "end", "unknown"}
    rows = [line.split(",") for line in (whole / "log.csv").read_text().splitlines()]
    column = rows[0].index("nll")
    learned = [float(row[column]) for row in rows if row[rows[0].index("split")] == "validation"]
    assert learned[-1] < 0.7 * learned[0]
    for split in ("validation", "test"):
        assert metrics[split]["nll"] < metrics[split]["loss"] and 0 <= metrics[split]["bleu"] <= 100
    written = json.loads((whole / "evaluation" / "texts.json").read_text())
    references = (pairs / "test.en").read_text().splitlines()
    assert metrics["test"]["bleu"] == pytest.approx(bleu(written, references, "en"))
    page = (whole / "report.html").read_text()
    assert "a beam of 2, length penalty 0.6" in page and references[0] in page and "Alignments" not in page


def test_a_run_is_resumed_where_it_stood(
    whole: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, chosen = tmp_path / "run", settings("transformer_nano", checkpoint_minutes=0.0)
    step = Trainer.step

    def stop(self: Trainer, batches: Any) -> None:
        if self.state.step == 23:
            raise Interrupted("here")
        step(self, batches)

    monkeypatch.setattr(Trainer, "step", stop)
    with pytest.raises(Interrupted):
        train("transformer_nano", str(pairs), out, **chosen)
    monkeypatch.undo()
    train("transformer_nano", str(pairs), out, **chosen)
    expected, found = (load_file(run / "model" / "model.safetensors") for run in (whole, out))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("name", ["rnnsearch_nano", "luong_nano"])
def test_recurrent_models_learn_too(name: str, pairs: Path, tmp_path: Path) -> None:
    metrics = train(name, str(pairs), tmp_path / "run", **settings(name, max_steps=6))
    assert metrics["steps"] == 6 and metrics["test"]["nll"] < 3.5
    page = (tmp_path / "run" / "report.html").read_text()
    assert ('<section id="alignments">' in page) == (name == "rnnsearch_nano")


def test_a_run_answers(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = ("ein hund", "da")
    assert orchard("generate", whole, *sources, "--beam", 3, "--count", 2, "--json") == 0
    answers = json.loads(capsys.readouterr().out)
    assert [one["source"] for one in answers] == [*sources]
    assert all(len(one["texts"]) == 2 and one["scores"] == sorted(one["scores"], reverse=True) for one in answers)
    generator = Text2TextGenerator(whole)
    assert generator([*sources], beam=3) == [one["text"] for one in answers]
    assert generator("da", beam=3) == [answers[1]["text"]]  # in no other company
    assert orchard("generate", whole, "da", "--temperature", 1, "--count", 3, "--seed", 1) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert orchard("generate", whole, "da", "--beam", 2, "--count", 3) == 2
    assert "give --beam 3" in capsys.readouterr().err


def test_a_run_is_evaluated_on_other_pairs(whole: Path, pairs: Path) -> None:
    metrics = json.loads((whole / "metrics.json").read_text())
    found = evaluate(whole, str(pairs), split="test")["test"]
    assert found["nll"] == pytest.approx(metrics["test"]["nll"], rel=1e-4)
    assert found["loss"] == found["nll"]  # smoothing is a matter of training


def test_a_run_is_fine_tuned_with_its_tokenizer(whole: Path, pairs: Path, tmp_path: Path) -> None:
    metrics = train(
        "transformer_nano",
        str(pairs),
        tmp_path / "run",
        start_from=str(whole),
        **settings("transformer_nano", epochs=1),
    )
    before = json.loads((whole / "metrics.json").read_text())
    assert metrics["test"]["nll"] < before["test"]["nll"] + 0.3
    tokenizers = [json.loads((run / "model" / "text_tokenizer" / "text.json").read_text())
                  for run in (whole, tmp_path / "run")]  # fmt: skip
    assert tokenizers[0] == tokenizers[1]


def test_settings_that_do_not_fit_are_refused(pairs: Path, tmp_path: Path) -> None:
    for changes, words in (
        ({"text.length": 200}, "text.length is 200, the context of transformer_nano 128"),
        ({"architecture.vocabulary": 9}, "architecture.vocabulary is 9, but the tokenizer's is"),
        ({"data.source_language": "fr"}, "no training file in 'fr'"),
    ):
        with pytest.raises(UsageError, match=words):
            train("transformer_nano", str(pairs), tmp_path / "run", **settings("transformer_nano", **changes))


def test_the_loss_is_the_smoothed_cross_entropy_of_what_is_no_padding() -> None:
    from orchard.data.batches import Padded
    from orchard.data.pairs import PairBatch

    logits, generator = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0)), torch.Generator()
    target = torch.randint(7, (2, 4), generator=generator)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    batch = PairBatch(Padded(target, mask), Padded(target, mask), torch.arange(2))
    loss, metrics = Text2Text(0.1).loss(lambda *_: logits, batch)  # type: ignore[arg-type]
    wanted = target[:, 1:].masked_fill(~mask[:, 1:], -100).flatten()
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted, label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted)
    torch.testing.assert_close(metrics["nll"], plain)
