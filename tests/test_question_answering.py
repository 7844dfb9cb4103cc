"""Question answering: files and what is wrong in them, windows, metrics, a whole run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import orchard
from safetensors.torch import load_file

from orchard.app.evaluate import evaluate
from orchard.app.train import train
from orchard.data.kinds import kind_by_look, kind_named
from orchard.data.questions import Answer, open_questions
from orchard.data.questions.encoding import QuestionEncoder
from orchard.data.settings import QuestionSource
from orchard.data.text_inputs import TextInputs
from orchard.data.tokenizers import Characters
from orchard.errors import OrchardError, UsageError
from orchard.models import create_model
from orchard.models.language.text_encoder import BERT
from orchard.tasks.question_answering.metrics import answer_metrics, exact_match, f1, normalise
from orchard.tasks.question_answering.pipeline import QuestionAnswerer
from orchard.training.loop import Trainer
from orchard.training.state import Interrupted

SMALL: dict[str, Any] = {
    "batch_size": 8,
    "epochs": 10,
    "log_every": 5,
    "optimizer.lr": 1e-2,
    "text.vocabulary": 300,
    "text.length": 40,
    "text.overlap": 8,
    "architecture.embedding": 24,
    "architecture.width": 16,
    "architecture.layers": 1,
    "architecture.dropout": 0.0,
}
PEOPLE = ("Ada", "Bo", "Cy", "Di")
PLACES = ("Rome", "Oslo", "Lima")


def settings(**changes: Any) -> QuestionSource:
    return QuestionSource.model_validate({"source": "", **changes})


def paragraph(context: str, *asked: tuple[str, str], number: int = 0) -> dict[str, Any]:
    """A text with questions; of one without an answer the answer is ""."""
    qas = []
    for place, (question, answer) in enumerate(asked):
        answers = [{"text": answer, "answer_start": context.find(answer)}] if answer else []
        qas.append({"id": f"{number}-{place}", "question": question, "answers": answers, "is_impossible": not answer})
    return {"context": context, "qas": qas}


def squad(path: Path, paragraphs: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "x", "paragraphs": paragraphs}]}))
    return path


def whole_of(source: Any, **changes: Any) -> Any:
    return open_questions(source, settings(**changes).for_evaluation(whole=True))


def test_places_of_answers_are_checked_and_mended(tmp_path: Path) -> None:
    text = "Rome is old. Ada lives in Rome."
    one = paragraph(text, ("Who?", "Ada"), ("Where?", "Rome"))
    one["qas"][0]["answers"][0]["answer_start"] = 3
    one["qas"][1]["answers"][0]["answer_start"] = 25
    path = squad(tmp_path / "set.json", [one])
    data = whole_of(str(path))
    assert [q.answers for q in data.splits["test"].questions] == [(Answer("Ada", 13),), (Answer("Rome", 26),)]
    assert any("stands at 13, not at 3" in problem.what for problem in data.problems)
    one["qas"][1]["answers"][0] = {"text": "Paris", "answer_start": 0}
    squad(path, [one])
    with pytest.raises(
        OrchardError, match=r"set\.json, question 0-1: its answer 'Paris' does not stand in the text at 0"
    ):
        whole_of(str(path))
    data = whole_of(str(path), bad_records="skip")
    assert len(data.splits["test"]) == 1 and any("left out" in problem.what for problem in data.problems)


def test_forms_of_files_are_known(tmp_path: Path) -> None:
    lines = tmp_path / "rows.jsonl"
    row = {"id": "7", "context": "Ada sleeps.", "question": "Who?", "answers": {"text": ["Ada"], "answer_start": [0]}}
    lines.write_text(json.dumps(row) + "\n")
    assert (kind := kind_by_look(str(lines))) and kind.name == "questions"
    assert whole_of(str(lines)).splits["test"].record(0).answers == (Answer("Ada", 0),)
    first = tmp_path / "cmrc.json"
    table = {"context_id": "T1", "context_text": "小明住在北京的东边。", "qas": [
        {"query_id": "Q1", "query_text": "小明住在哪里？", "answers": ["北京", "北京的东边"]}]}  # fmt: skip
    first.write_text(json.dumps([table]))
    data = whole_of(str(first))
    assert data.language == "zh" and [a.start for a in data.splits["test"].record(0).answers] == [4, 4]
    kind = kind_named("questions")
    given = kind.take([row] * 3)
    assert len(whole_of(given).splits["test"]) == 3 and kind.is_of([row]) and not kind.is_of([("a", "b")])
    for wrong, said in (("{", "no JSON"), ('{"data": 3}', "another form"), ('{"data": []}', "has no question")):
        first.write_text(wrong)
        with pytest.raises(OrchardError, match=said):
            whole_of(str(first))
    with pytest.raises(UsageError, match="xquad needs a folder"):
        whole_of("xquad")


def test_questions_of_a_text_stay_together(tmp_path: Path) -> None:
    texts = [paragraph(f"Ada has {n} books.", ("Who?", "Ada"), ("How many?", str(n)), number=n) for n in range(40)]
    data = open_questions(str(squad(tmp_path / "all.json", texts)), settings())
    found = [{one.of_text for one in split.questions} for split in data.splits.values()]
    assert len(found) == 3 and sum(map(len, found)) == 40 and not data.unanswerable


def test_windows_have_the_answer_where_it_stands() -> None:
    tokenizer = Characters(" abcdefghijklmnopqrstuvwxyz?.", "unknown", ("pad", "class", "separator"))
    encoder = QuestionEncoder(TextInputs(tokenizer, 30, BERT), 8)
    context = "one two three four five six seven eight nine ten eleven twelve."
    windows = encoder.windows("which?", context)
    answer = (Answer("seven eight", context.find("seven")),)
    spans = [one.span(answer) for one in windows]
    assert len(windows) > 3 and any(span != (0, 0) for span in spans)
    for one, (begin, end) in zip(windows, spans, strict=True):
        assert len(one.text.ids) <= 30 and one.text.segments[one.first] == 1
        if (begin, end) != (0, 0):
            a, b = one.places[begin - one.first][0], one.places[end - one.first][1]
            assert context[a:b] == "seven eight"
            assert tokenizer.decode(one.text.ids[begin : end + 1]) == "seveneight"
    with pytest.raises(UsageError, match=r"text\.overlap is 20"):
        QuestionEncoder(TextInputs(tokenizer, 30, BERT), 20)


def test_answers_are_compared_as_squad_and_cmrc_do() -> None:
    assert normalise("The  Broncos!", "en") == "broncos" and exact_match("the broncos", ["Broncos."], "en") == 1
    assert f1("a big red dog", ["red dog", "cat"], "en") == pytest.approx(2 * 2 / 5)
    assert f1("", [], "en") == 1 == exact_match("", [], "en") and f1("x", [], "en") == 0 == f1("", ["x"], "en")
    assert exact_match("《北京》", ["北京"], "zh") == 1
    assert f1("北京东边", ["北京的东边"], "zh") == pytest.approx(2 * 2 / 9)  # two characters are the longest piece
    assert f1("ABC公司", ["abc公司"], "zh") == 1
    metrics = answer_metrics(["Ada", "", "x"], [["Ada"], ["Bo"], []], "en")
    assert metrics == pytest.approx({"exact_match": 1 / 3, "f1": 1 / 3, "f1_with_answer": 0.5, "unanswered": 0.0})


def test_the_reader_reads_the_text_as_if_it_stood_alone() -> None:
    """What stands before the text moves nothing: the same text behind a question that is padded otherwise."""
    torch.manual_seed(0)
    model = create_model("drqa_nano", vocabulary=50, embedding=8, width=6, layers=2, dropout=0.0).eval()
    tokens = torch.tensor([[3, 4, 5, 6, 7, 8, 9, 0, 0]])
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 0, 0]])
    short = model(tokens[:, :7], None, segments[:, :7])
    torch.testing.assert_close(model(tokens, None, segments)[:, :7], short, atol=1e-6, rtol=1e-5)
    other = tokens.clone()
    other[0, 6] = 20  # the last word of the text is heard of at its first
    assert (model(other, None, segments)[0, 3] - short[0, 3]).abs().max() > 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    texts = []
    for n in range(36):
        who, where, other = PEOPLE[n % 4], PLACES[n % 3], PEOPLE[(n + 1 + n // 4 % 3) % 4]
        context = f"{who} sleeps in {where}. {other} runs."
        texts.append(paragraph(context, ("Who sleeps?", who), ("Who runs?", other), ("Who sings?", ""), number=n))
    squad(folder / "train-v2.0.json", texts)
    squad(folder / "dev-v2.0.json", texts[:5])
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    train("drqa_nano", str(folder), out, **SMALL)
    return out


def test_a_run_learns_and_reports(whole: Path, folder: Path) -> None:
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["validation"]["f1"] > 0.8 and metrics["validation"]["unanswered"] > 0.6
    facts = json.loads((whole / "run.json").read_text())["data"]
    assert facts["unanswerable"] and facts["language"] == "en" and facts["counts"]["train"] == 108
    page = (whole / "report.html").read_text()
    assert "<h2>Worst answers" in page and "<h2>Right answers" in page
    assert "<mark" in page, "of right answers those are shown first that are in the text"
    found = evaluate(whole, str(folder), split="validation")
    assert found["validation"]["f1"] == pytest.approx(metrics["validation"]["f1"])


def test_a_run_is_resumed_where_it_stood(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, chosen = Trainer.step, SMALL | {"epochs": 2, "checkpoint_minutes": 0.0}

    def stop(self: Trainer, batches: Any) -> None:
        if self.state.step == 17:
            raise Interrupted("here")
        step(self, batches)

    train("drqa_nano", str(folder), tmp_path / "whole", **chosen)
    monkeypatch.setattr(Trainer, "step", stop)
    with pytest.raises(Interrupted):
        train("drqa_nano", str(folder), tmp_path / "run", **chosen)
    monkeypatch.undo()
    train("drqa_nano", str(folder), tmp_path / "run", **chosen)
    expected, found = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("whole", "run"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_run_answers(whole: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Bo sleeps in Lima. Di runs.")
    assert orchard("predict", whole, "Who sleeps?", "Who runs?", "--context", text, "--json") == 0
    answers = json.loads(capsys.readouterr().out)
    assert [one["question"] for one in answers] == ["Who sleeps?", "Who runs?"]
    for one in answers:
        assert text.read_text()[one["start"] : one["end"]] == one["answer"] and 0 < one["score"] <= 1
    found = QuestionAnswerer(whole)("Who runs?", text.read_text())
    assert found["answer"] == answers[1]["answer"] and found["score"] == pytest.approx(answers[1]["score"], abs=1e-4)
    assert orchard("predict", whole, folder / "dev-v2.0.json", "--csv", tmp_path / "out.csv") == 0
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 16
    assert orchard("predict", whole, "Who sleeps?", "--context", "Bo sleeps.") == 0
    capsys.readouterr()
    assert orchard("predict", whole, "Who sleeps?") == 2
    assert "give one with --context FILE" in capsys.readouterr().err
    assert orchard("predict", whole, "Who sleeps?", "--context", tmp_path / "missing.txt") == 2
    assert "there is no file" in capsys.readouterr().err


def test_a_bert_answers_with_windows_of_its_context(folder: Path, tmp_path: Path) -> None:
    sizes = {f"architecture.{name}": size for name, size in (("width", 16), ("depth", 1), ("heads", 2), ("hidden", 32))}
    train("bert_nano", str(folder), tmp_path / "run", **sizes, max_steps=2, batch_size=4)
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["text.length"]["value"] == 128  # where nobody said a length: no more than the model reads


def test_data_check_counts_questions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert orchard("data", "check", folder, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["counts"]["train"]["questions"] == 108 and said["counts"]["train"]["without an answer"] == 36
    assert said["lists"]["text in several splits"]
