"""Token classification: CRF and BiLSTM against other ways to compute them, metrics, windows, a whole run."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import orchard
from safetensors.torch import load_file
from torch import Tensor

from orchard.app.evaluate import evaluate
from orchard.app.train import train
from orchard.data.tagged_text.encoding import TaggedEncoder, split_words
from orchard.data.tagged_text.tags import Entity
from orchard.data.text_inputs import TextInputs
from orchard.data.tokenizers import Characters
from orchard.errors import OrchardError
from orchard.nn.bidirectional import BidirectionalLSTM
from orchard.nn.crf import LinearChainCRF
from orchard.tasks.token_classification.metrics import error_of, match_entities, tag_metrics, type_rows
from orchard.tasks.token_classification.pipeline import TokenClassifier
from orchard.training.loop import Trainer
from orchard.training.state import Interrupted

SMALL: dict[str, Any] = {
    "batch_size": 8,
    "epochs": 12,
    "log_every": 5,
    "optimizer.lr": 2e-2,
    "text.vocabulary": 300,
    "text.length": 12,
    "architecture.embedding": 16,
    "architecture.width": 12,
    "architecture.dropout": 0.1,
}
NAMES = {"Ada": "B-PER", "Lovelace": "I-PER", "Rome": "B-LOC", "New": "B-LOC", "York": "I-LOC"}
LINES = (
    "Ada Lovelace sees Rome .",
    "New York is big",
    "Rome is in Rome , said Ada",
    "nobody sleeps",
    "Ada saw New York and Rome , Rome and New York , and Rome",
)


def test_crf_is_a_sum_over_all_sequences() -> None:
    torch.manual_seed(0)
    crf = LinearChainCRF(3)
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.normal_()
    scores, lengths = torch.randn(2, 4, 3), (4, 2)
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    tags = torch.tensor([[0, 2, 1, 1], [2, 0, 0, 0]])
    found, best, marginals = (
        crf.log_likelihood(scores, mask, tags),
        crf.decode(scores, mask),
        crf.marginals(scores, mask),
    )
    for row, length in enumerate(lengths):
        sequences = list(itertools.product(range(3), repeat=length))
        values = torch.stack([_score(crf, scores[row], one) for one in sequences])
        own = _score(crf, scores[row], tags[row, :length].tolist())
        torch.testing.assert_close(found[row], own - values.logsumexp(0), atol=1e-5, rtol=1e-5)
        assert tuple(best[row, :length].tolist()) == sequences[int(values.argmax())]
        share = values.softmax(0)
        first = sum(p for p, one in zip(share, sequences, strict=True) if one[1] == 0)
        torch.testing.assert_close(marginals[row, 1, 0], first, atol=1e-5, rtol=1e-5)


def _score(crf: LinearChainCRF, scores: Tensor, tags: Any) -> Tensor:
    own = torch.stack([scores[place, tag] for place, tag in enumerate(tags)]).sum()
    steps = sum(crf.transitions[a, b] for a, b in itertools.pairwise(tags))
    return own + steps + crf.begin[tags[0]] + crf.end[tags[-1]]


def test_the_lstm_is_torchs_over_packed_sequences() -> None:
    torch.manual_seed(0)
    ours, theirs = BidirectionalLSTM(6, 4, 2), torch.nn.LSTM(6, 4, 2, batch_first=True, bidirectional=True)
    for layer, kind in itertools.product(range(2), ("weight_ih", "weight_hh", "bias_ih", "bias_hh")):
        for side, ending in ((ours.right, ""), (ours.left, "_reverse")):
            getattr(side[layer], f"{kind}_l0").data.copy_(getattr(theirs, f"{kind}_l{layer}{ending}").data)
    x, lengths = torch.randn(3, 5, 6), torch.tensor([5, 1, 3])
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    mask = torch.arange(5) < lengths[:, None]
    torch.testing.assert_close(ours(x, mask)[mask], expected[mask], atol=1e-5, rtol=1e-5)


def test_metrics_are_seqevals() -> None:
    """What seqeval 1.2.2 gives for these, by default and with mode="strict", scheme=IOB2."""
    truth = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG", "I-ORG"], ["B-LOC", "O"]]
    found = [["B-PER", "I-PER", "O", "B-ORG"], ["O", "I-ORG", "I-ORG"], ["O", "I-LOC"]]
    metrics = tag_metrics(truth, found, 9.0, plain=False)
    assert metrics == pytest.approx(
        {"loss": 1.0, "accuracy": 5 / 9, "precision": 0.5, "recall": 0.5, "f1": 0.5, "strict_f1": 1 / 3}
    )
    rows = {str(row["type"]): row for row in type_rows(truth, found, plain=False)}
    assert rows["ORG"]["precision"] == 0.5 and rows["ORG"]["recall"] == 1.0 and rows["LOC"]["f1"] == 0.0
    assert rows["LOC"]["true"] == 2 and rows["LOC"]["found"] == 1
    plain = type_rows([["N", "V"]], [["N", "N"]], plain=True)
    assert [row["f1"] for row in plain] == [pytest.approx(2 / 3), 0.0]


def test_errors_have_kinds() -> None:
    truth = [Entity("PER", 0, 2), Entity("LOC", 3, 4), Entity("ORG", 5, 8), Entity("LOC", 9, 10)]
    found = [Entity("PER", 0, 1), Entity("ORG", 3, 4), Entity("LOC", 6, 8), Entity("PER", 12, 13)]
    kinds = [error_of(*pair) for pair in match_entities(truth, found)]
    assert kinds == ["wrong boundaries", "wrong type", "wrong type and boundaries", "missed", "not an entity"]
    assert error_of(truth[0], truth[0]) == ""


@pytest.mark.parametrize("length", [6, 9, 40])
def test_windows_ask_for_every_word_once(length: int) -> None:
    tokenizer = Characters("abcdefghij", "unknown", ("pad", "class", "separator"))
    encoder = TaggedEncoder(TextInputs(tokenizer, length, ("class a separator", "a b")), characters=False)
    words = ["a", "bcd", "ef", "abcdefghij", "g", "h", "ij", "a", "\u200b", "bc"] * 3
    windows = encoder.windows(words)
    assert [n for one in windows for n in range(one.begin, one.end)] == list(range(len(words)))
    assert (len(windows) == 1) == (sum(map(len, words)) + 2 <= length)
    for one in windows:
        assert len(one.text.ids) <= length
        for place, word in zip(one.at, words[one.begin : one.end], strict=True):
            assert one.text.ids[place] == tokenizer.encode(word)[0]


def test_texts_are_cut_into_words() -> None:
    text = "I'm at the U.S. embassy, @Ada #x 3.5 我在Rome"
    words = split_words(text, "words")
    expected = ["I", "'m", "at", "the", "U.S.", "embassy", ",", "@Ada", "#x", "3.5", "我", "在", "Rome"]
    assert [word for word, *_ in words] == expected
    assert all(text[begin:end] == word for word, begin, end in words)
    assert [word for word, *_ in split_words("a bc 我", "characters")] == ["a", "b", "c", "我"]
    assert [word for word, *_ in split_words("a, b", "spaces")] == ["a,", "b"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tags")
    tagged = ["".join(f"{word}\t{NAMES.get(word, 'O')}\n" for word in line.split()) for line in LINES]
    for split, times in (("train", 8), ("dev", 1), ("test", 1)):
        (folder / f"{split}.conll").write_text("\n".join(tagged * times))
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    train("bilstm_crf_nano", str(folder), out, **SMALL)
    return out


def test_a_run_learns_and_reports(whole: Path, folder: Path) -> None:
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["test"]["f1"] == 1.0 and metrics["test"]["accuracy"] == 1.0 and metrics["test"]["loss"] < 0.5
    facts = json.loads((whole / "run.json").read_text())["data"]
    assert facts["scheme"] == "BIO" and facts["classes"] == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    answers = json.loads((whole / "evaluation" / "tags.json").read_text())
    assert [len(one["tags"]) for one in answers] == [len(line.split()) for line in LINES]
    page = (whole / "report.html").read_text()
    assert "Per-type metrics" in page and "every word of the test split has the right tag" in page
    found = evaluate(whole, str(folder))
    assert found["test"]["f1"] == 1.0 and found["tables"]["by type"][0]["type"] == "LOC"


def test_a_run_is_resumed_where_it_stood(
    whole: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, step = tmp_path / "run", Trainer.step

    def stop(self: Trainer, batches: Any) -> None:
        if self.state.step == 31:
            raise Interrupted("here")
        step(self, batches)

    monkeypatch.setattr(Trainer, "step", stop)
    chosen = SMALL | {"checkpoint_minutes": 0.0}
    with pytest.raises(Interrupted):
        train("bilstm_crf_nano", str(folder), out, **chosen)
    monkeypatch.undo()
    train("bilstm_crf_nano", str(folder), out, **chosen)
    expected, found = (load_file(run / "model" / "model.safetensors") for run in (whole, out))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_run_answers(whole: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "Ada Lovelace sees Rome."
    assert orchard("predict", whole, text, "nobody sleeps", "--json") == 0
    first, second = json.loads(capsys.readouterr().out)
    assert [(one["entity_group"], one["word"], one["start"], one["end"]) for one in first["entities"]] == [
        ("PER", "Ada Lovelace", 0, 12), ("LOC", "Rome", 18, 22)]  # fmt: skip
    assert all(0.5 < one["score"] <= 1 for one in first["entities"]) and second["entities"] == []
    assert TokenClassifier(whole)(text) == [
        one | {"score": pytest.approx(one["score"], abs=1e-5)} for one in first["entities"]
    ]
    assert orchard("predict", whole, text) == 0
    assert "[Ada Lovelace] PER" in capsys.readouterr().out
    out = tmp_path / "found.conll"
    assert orchard("predict", whole, folder / "test.conll", "--conll", out, "--csv", tmp_path / "found.csv") == 0
    assert out.read_text().strip() == (folder / "test.conll").read_text().strip()
    rows = (tmp_path / "found.csv").read_text().splitlines()
    assert rows[0] == "text,entities,types,starts,ends,scores" and "Ada Lovelace|Rome,PER|LOC,0|18,12|22" in rows[1]
    assert orchard("predict", whole, " ") == 2


def test_a_set_with_other_types_is_refused(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "test.conll").write_text("Acme\tB-ORG\n")
    with pytest.raises(OrchardError, match=r"has no tag B-ORG; it has O, B-LOC"):
        evaluate(whole, str(tmp_path))


def test_plain_tags_are_learned_by_a_model_that_knew_entities(whole: Path, tmp_path: Path) -> None:
    """Parts of speech: accuracy selects, and all but the head is taken over."""
    words = {"Ada": "NNP", "sees": "VBZ", "the": "DT", "city": "NN"}
    lines = ["Ada sees the city", "the city", "Ada sees Ada"] * 8
    path = tmp_path / "pos.tsv"
    path.write_text("\n".join("".join(f"{w}\t{words[w]}\n" for w in line.split()) for line in lines))
    chosen = {key: value for key, value in SMALL.items() if not key.startswith("architecture")}
    metrics = train("bilstm_crf_nano", str(path), tmp_path / "run", **chosen | {"start_from": str(whole), "epochs": 8})
    assert metrics["metric"] == "accuracy" and metrics["validation"]["accuracy"] > 0.6 and "f1" not in metrics["test"]
    assert "Words by their tag." in (tmp_path / "run" / "report.html").read_text()
