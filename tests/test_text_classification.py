"""Texts with labels: formats are found by looking, bad records are named, a classifier learns, resumes, answers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import orchard
from safetensors.torch import load_file
from stopping import stopped_after

from orchard.app.compare import Budget, compare
from orchard.app.evaluate import evaluate
from orchard.app.train import train
from orchard.data.kinds import kind_by_look, kind_named
from orchard.data.labelled_text.check import check_labelled_texts
from orchard.data.labelled_text.contracts import LabelledTextData
from orchard.data.labelled_text.loader import TextLoader
from orchard.data.labelled_text.sources import open_labelled_texts, recognise
from orchard.data.settings import AnySource, LabelledTextSource
from orchard.data.text_inputs import TextInputs
from orchard.data.train_tokenizers import train_words
from orchard.errors import OrchardError, UsageError
from orchard.models import create_model
from orchard.models.language.text_encoder import BERT, PLAIN
from orchard.tasks.text_classification.pipeline import TextClassifier

ROLES = ("pad", "class", "separator", "mask")
GOOD, BAD = ("a fine film", "good and warm", "so funny"), ("dull film", "a cold mess", "so long")
SMALL: dict[str, Any] = {"epochs": 4, "batch_size": 16, "log_every": 2, "optimizer.lr": 1e-2, "text.length": 24,
                         "architecture": {"width": 16, "filters": 8}}  # fmt: skip


def rows(count: int = 60) -> list[tuple[str, str]]:
    """Texts and classes, every text once."""
    return [(f"{word}, number {n}", label) for n in range(count // 6) for words, label in ((GOOD, "yes"), (BAD, "no"))
            for word in words]  # fmt: skip


def write_csv(path: Path, records: list[tuple[str, str]], header: str = "review,sentiment\n") -> Path:
    path.write_text(header + "".join(f'"{text}",{label}\n' for text, label in records), encoding="utf-8")
    return path


def opened(path: Path | str, **settings: Any) -> LabelledTextData:
    return open_labelled_texts(str(path), LabelledTextSource.model_validate({"source": str(path), **settings}))


def test_every_format_gives_the_same_records(tmp_path: Path) -> None:
    records = [*rows(), ("two lines,\nand a comma 😀", "no")]
    table = write_csv(tmp_path / "a.csv", records)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t, "label": c}) + "\n" for t, c in records))
    with gzip.open(tmp_path / "a.tsv.gz", "wt") as file:
        file.write("".join(f"{c}\t{' '.join(t.split())}\n" for t, c in records))
    (tmp_path / "a.txt").write_text("".join(f"__label__{c} {' '.join(t.split())}\n" for t, c in records))
    for n, (text, label) in enumerate(records):
        place = tmp_path / "folder" / label
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{n:03d}.txt").write_text(text)
    expected = {(" ".join(t.split()), c) for t, c in records}
    for source in (table, *(tmp_path / name for name in ("a.jsonl", "a.tsv.gz", "a.txt", "folder"))):
        data = opened(source)
        found = {
            (" ".join(split.text(n)[0].split()), data.classes[split.labels[n]])
            for split in data.splits.values()
            for n in range(len(split))
        }
        assert found == expected and data.classes == ("no", "yes") and not data.problems, source
        assert recognise(str(source)), source
        assert kind_by_look(str(source)).name == "labelled-text"  # type: ignore[union-attr]
    assert opened(table).splits["train"].key(0) == f"{table}, line 2"


@pytest.mark.parametrize(("header", "count", "names"), [
    ("what it says,where from\n", 60, True),  # no usual names, and over classes
    ("what it says,where from\n", 12, False),  # too few rows to tell
    ("", 60, False),
    ("a fine day,yes\n", 60, False),  # a class of others too
])  # fmt: skip
def test_a_line_of_names_that_nobody_expected(header: str, count: int, names: bool, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "own.csv", rows(count), header)
    data = opened(path)
    assert sum(len(split) for split in data.splits.values()) == count + bool(header and not names)
    assert ("where from" in data.reason) == names
    scores = "".join(f"a text of {n} words,{n / 4}\n" for n in range(30))
    (tmp_path / "scores.csv").write_text("what it says,how good\n" + scores)
    assert "how good" in opened(tmp_path / "scores.csv", target="number").reason


def test_parquet_is_read_a_group_at_a_time(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    texts, labels = zip(*rows(), strict=True)
    path = tmp_path / "reviews.parquet"
    parquet.write_table(pyarrow.table({"text": texts, "label": labels, "stars": range(60)}), path, row_group_size=7)
    data = opened(path)
    assert data.classes == ("no", "yes") and sum(map(len, data.splits.values())) == 60 and recognise(str(path))
    assert data.splits["train"].key(0).startswith(f"{path}, row ")
    path.write_bytes(b"PAR1 cut off")
    with pytest.raises(OrchardError, match="is no Parquet file"):
        opened(path)


def test_what_is_something_else_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "pictures.csv").write_text("path,label\na.png,cat\nb.png,dog\n")
    (tmp_path / "pairs.tsv").write_text("source\ttarget\n" + "ein hund\ta dog\n" * 20)
    (tmp_path / "book.txt").write_text("Once upon a time. " * 50)
    (tmp_path / "captions.tsv").write_text("".join(f"{n}\ta dog number {n}\n" for n in range(20)))
    assert not any(
        recognise(str(tmp_path / name)) for name in ("pictures.csv", "pairs.tsv", "book.txt", "captions.tsv")
    )


def test_pairs_several_labels_numbers_and_splits(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("sentence1\tsentence2\tgold_label\n" + "".join(f"a {n}\tb {n}\tc{n % 2}\n" for n in range(40)))
    data = opened(pairs)
    assert data.paired and data.splits["train"].text(0)[1] is not None and data.classes == ("c0", "c1")
    several = tmp_path / "several.csv"
    several.write_text("comment,rude,loud\n" + "".join(f"word {n},{n % 2},{n % 3 // 2}\n" for n in range(40)))
    data = opened(several)
    assert data.target == "classes" and data.classes == ("rude", "loud")
    lists = tmp_path / "lists.jsonl"
    lists.write_text(
        "".join(json.dumps({"text": f"w {n}", "labels": ["a"] * (n % 2) + ["b"]}) + "\n" for n in range(40))
    )
    assert opened(lists).classes == ("a", "b") and opened(lists).target == "classes"
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("text,score\n" + "".join(f"word {n},{n / 7:.3f}\n" for n in range(40)))
    assert opened(numbers, target="number").target == "number"
    folder = tmp_path / "splits"
    folder.mkdir()
    for split in ("train", "dev", "test"):
        write_csv(folder / f"{split}.csv", [(f"{text} {split}", label) for text, label in rows(12)])
    assert {name: len(split) for name, split in opened(folder).splits.items()} == dict.fromkeys(
        ("train", "validation", "test"), 12
    )
    headerless = tmp_path / "easy.tsv"
    headerless.write_text("".join(f"{n % 2}\t{n}\ta text {n}\tanother {n}\n" for n in range(40)))
    data = opened(headerless, column_names="label:str:1,sid1:str:1,sent1:str:1,sent2:str:1")
    assert data.paired and data.classes == ("0", "1") and data.splits["train"].text(0)[0].startswith("a text")


@pytest.mark.parametrize(
    "content, said",
    [
        ("text,label\na,x\n,y\n" + "b,x\nc,y\n" * 9, r"1 of 20 texts cannot be read: .*line 3: its text is empty"),
        ("text,label\na,x\nb,\n" + "b,x\nc,y\n" * 9, r"1 of 20 texts have no label: .*line 3: its label is empty"),
        ('text,label\na,x\n"b,y\n', r"line 3: unexpected end of data"),
        ("text,label\n" + "a,x\nb,x\n" * 9, "one class only, 'x'"),
        ("one,two,three\n" + "a,b,c\nd,e,f\n" * 9, "no column is the"),
        ("text,label\na\nb,y\n" + "c,x\nd,y\n" * 9, r"line 2: it has 1 columns, where there should be 2"),
    ],
)
def test_bad_tables_name_their_line(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(OrchardError, match=said):
        opened(tmp_path / "bad.csv")


def test_bytes_and_json_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes(b"text,label\n" + b"gut,x\nsch\xf6n,y\n" * 5)
    with pytest.raises(OrchardError, match=r"latin.csv, line 3: not UTF-8 \(byte 0xf6\)"):
        opened(tmp_path / "latin.csv")
    (tmp_path / "half.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": "\\ud83d", "label": "y"}\n' * 8)
    with pytest.raises(OrchardError, match=r"8 of 16 texts cannot be read: .*line 2: .*half a character"):
        opened(tmp_path / "half.jsonl")
    (tmp_path / "no.jsonl").write_text('{"text": "a", "label": "x"}\n[1]\n')
    with pytest.raises(OrchardError, match="line 2: expected an object"):
        opened(tmp_path / "no.jsonl")
    long = write_csv(tmp_path / "long.csv", [("word " * 200_000, "yes"), *rows()])
    assert max(len(split.text(n)[0]) for split in opened(long).splits.values() for n in range(len(split))) > 900_000


def test_skipped_records_are_listed(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [*rows(), ("", "yes"), ("no class", "")])
    data = opened(path, bad_records="skip")
    assert sorted(one.key for one in data.problems) == [f"{path}, line {line}" for line in (62, 63)]
    assert sum(map(len, data.splits.values())) == 60


def test_objects(tmp_path: Path) -> None:
    kind = kind_named("labelled-text")
    pairs = kind.take({"train": rows(), "test": rows(12)})
    data = open_labelled_texts(pairs, LabelledTextSource(source=pairs.source))  # type: ignore[union-attr, arg-type]
    assert data.classes == ("no", "yes") and len(data.splits["test"]) == 12
    records = kind.take([{"sentence": text, "label": int(label == "yes")} for text, label in rows()])
    assert open_labelled_texts(records, LabelledTextSource(source="x")).classes == ("0", "1")
    with pytest.raises(UsageError, match=r"list\[0\] has a; expected a text named"):
        kind.take([{"a": 1}])
    assert not kind.is_of(["only", "texts"]) and kind.is_of(rows())


def test_what_is_looked_at(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [*rows(), *rows(6), ("a fine film, number 0", "no")])
    report = check_labelled_texts(str(path), AnySource(source=str(path)))  # type: ignore[arg-type]
    assert any(name.startswith("the same text again") for name in report.lists)
    assert any(name.startswith("the same text with another label (1") for name in report.lists)
    assert orchard("data", "check", path) == 0


def test_pairs_are_laid_out_and_the_longer_is_cut() -> None:
    tokenizer = train_words(["a b c d e f g h"], 20, ROLES)
    inputs = TextInputs(tokenizer, 8, BERT)
    row = inputs.encode("a b c d e f", "g h")
    specials = tokenizer.specials
    a, b = tokenizer.encode("a b c"), tokenizer.encode("g h")
    assert row.ids == [specials["class"], *a, specials["separator"], *b, specials["separator"]]
    assert row.segments == [0] * 5 + [1] * 3 and row.begin == (1, 5)
    assert len(inputs.encode("a b c d e f", "a b c d e f").ids) == 8 and inputs.tokens("a b", "c") == 6
    assert TextInputs(tokenizer, 8, PLAIN).encode("a b").ids == tokenizer.encode("a b")
    with pytest.raises(UsageError, match=r"text.length is 4; with special tokens a text takes"):
        TextInputs(tokenizer, 4, BERT)


def test_batches_hold_texts_of_like_lengths_and_every_record(tmp_path: Path) -> None:
    data = opened(write_csv(tmp_path / "a.csv", [(f"word {'more ' * (n % 9)}{n}", "yn"[n % 2]) for n in range(200)]))
    inputs = TextInputs(train_words(["word more 1 2 3"], 40, ROLES), 32, PLAIN)
    loader = TextLoader(data.splits["train"], inputs, batch_size=8, seed=1, training=True)
    first, again = (list(loader.batches(0)) for _ in range(2))
    assert all(torch.equal(a.tokens.values, b.tokens.values) for a, b in zip(first, again, strict=True))
    assert np.mean([float(batch.tokens.mask.float().mean()) for batch in first]) > 0.9
    judged = list(TextLoader(data.splits["train"], inputs, batch_size=8, seed=1, training=False).batches(0))
    assert sorted(i for batch in judged for i in batch.indices.tolist()) == list(range(len(data.splits["train"])))
    assert all(
        torch.equal(batch.labels, torch.from_numpy(data.splits["train"].labels[batch.indices])) for batch in judged
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    table = write_csv(folder / "reviews.csv", rows(120))
    train("textcnn_nano", str(table), folder / "run", **SMALL)
    return folder / "run"


def test_a_run_learns_and_answers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["task"] == "text-classification" and metrics["test"]["accuracy"] > 0.9
    page = (run / "report.html").read_text()
    assert "Right answers by length" in page and "Confusion matrix" in page
    classify = TextClassifier(run)
    found = classify(["good and warm, number 3", "dull film", ""])
    assert [one.top[0][0] for one in found[:2]] == ["yes", "no"] and found[2].error == "the text is empty"
    assert abs(classify("dull film")[0].top[0][1] - found[1].top[0][1]) < 1e-5  # whatever else is in the batch
    assert orchard("predict", run, "so funny", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["top"][0]["class"] == "yes"
    table = run.parent / "new.csv"
    table.write_text("id,review\n1,a fine film\n2,a cold mess\n")
    assert orchard("predict", run, "--data", table, "--csv", run.parent / "out.csv") == 0
    assert (run.parent / "out.csv").read_text().splitlines()[1].startswith("a fine film,yes,")
    assert orchard("predict", run, "one", "--pair", "two") == 1 and "leave out the second" in capsys.readouterr().err
    assert evaluate(run, str(run.parent / "reviews.csv"))["test"]["accuracy"] > 0.9
    other = write_csv(run.parent / "other.csv", [("x y z", "maybe"), *rows(12)])
    with pytest.raises(OrchardError, match="does not know the class 'maybe'"):
        evaluate(run, str(other))


def test_the_words_of_an_answer_are_shown(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert orchard("explain", run, "dull film", "good and warm", "--out", tmp_path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    first = {word["text"]: word["share"] for word in found["explanations"][0]["words"]}
    assert found["explanations"][0]["class"] == "no" and first["dull"] > 0
    assert "good" in (tmp_path / "explain.html").read_text()
    assert orchard("explain", run, "dull film", "--class", "yes", "--out", tmp_path) == 0
    assert orchard("explain", run, "dull film", "--class", "maybe") == 2
    assert orchard("explain", run, "  ", "--out", tmp_path) == 1 and "the text is empty" in capsys.readouterr().err


def test_stopped_and_resumed_ends_in_the_same_bits(run: Path, tmp_path: Path) -> None:
    table, steps = str(run.parent / "reviews.csv"), json.loads((run / "metrics.json").read_text())["steps"]
    with stopped_after(5, steps):
        train("textcnn_nano", table, tmp_path / "run", **SMALL)
    train("textcnn_nano", table, tmp_path / "run", **SMALL)
    before, after = (load_file(folder / "model" / "model.safetensors") for folder in (run, tmp_path / "run"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_going_on_with_other_classes_takes_all_but_the_head(run: Path, tmp_path: Path) -> None:
    table = write_csv(
        tmp_path / "topics.csv", [(f"{text} {n}", f"topic {n % 3}") for n, (text, _) in enumerate(rows())]
    )
    settings = {"batch_size": 16, "epochs": 0.01, "optimizer.lr": 1e-9, "start_from": str(run), "text.length": 24}
    train("textcnn_nano", str(table), tmp_path / "run", **settings)
    before, after = (load_file(folder / "model" / "model.safetensors") for folder in (run, tmp_path / "run"))
    assert (
        torch.allclose(before["token.weight"], after["token.weight"], atol=1e-6) and after["head.weight"].shape[0] == 3
    )


def test_numbers_and_several_classes_are_learned(tmp_path: Path) -> None:
    several = tmp_path / "several.csv"
    said = [(n, n % 2, n % 3 // 2) for n in range(90)]
    several.write_text("text,rude,loud\n" + "".join(f"{'bad' * a} {'LOUD' * b} {n},{a},{b}\n" for n, a, b in said))
    quick = {**SMALL, "epochs": 2}
    assert "map" in train("textcnn_nano", str(several), tmp_path / "several", **quick)["test"]
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("text,score\n" + "".join(f"{'very ' * (n % 5)}good {n},{n % 5 + n / 1000}\n" for n in range(90)))
    found = train("fasttext_nano", str(numbers), tmp_path / "numbers", epochs=2, **{"data.target": "number"})
    assert {"mae", "spearman", "pearson"} <= found["test"].keys()
    assert (tmp_path / "numbers" / "report.html").exists() and (tmp_path / "several" / "report.html").exists()


def test_two_classifiers_are_compared(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "reviews.csv", rows(60))
    found = compare(["textcnn_nano", "fasttext_nano"], str(table), tmp_path / "out", budget=Budget("epochs", 1))
    assert len(found["contestants"]) == 2 and not any(row["error"] for row in found["contestants"])


def test_an_answer_does_not_depend_on_padding() -> None:
    torch.manual_seed(0)
    for name in ("textcnn_nano", "fasttext_nano"):
        model = create_model(name, vocabulary=30, num_classes=3).eval()
        torch.nn.init.normal_(model.head.weight)
        tokens = torch.randint(1, 30, (2, 7))
        longer = torch.nn.functional.pad(tokens, (0, 5))
        assert torch.allclose(model(tokens, tokens > 0), model(longer, longer > 0), atol=1e-6)


def test_the_weights_of_a_class_are_kept_short() -> None:
    model: Any = create_model("textcnn_nano", max_norm=0.5)
    model.project()
    assert float(model.head.weight.detach().norm(dim=1).max()) <= 0.5 + 1e-6


CLASSIC = ("dan_nano", "charcnn_nano", "gru_classifier_nano", "lstm_classifier_nano", "bilstm_attention_nano")


@pytest.mark.parametrize("name", CLASSIC)
def test_classic_classifiers_do_not_see_padding(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, vocabulary=30, num_classes=3).eval()
    tokens = torch.randint(1, 30, (2, 9))
    tokens[1, 6:] = 0
    longer = torch.nn.functional.pad(tokens, (0, 5))
    assert torch.allclose(model(tokens), model(longer), atol=1e-5)
    assert torch.allclose(model(tokens)[1:], model(tokens[1:, :6]), atol=1e-5)


def test_a_char_cnn_has_the_shapes_of_its_table() -> None:
    """Table 1 and section 2.4: of 1014 characters 34 places are left, (1014 - 96) / 27."""
    with torch.device("meta"):
        small, large = (create_model(name, vocabulary=70, num_classes=4) for name in ("charcnn_small", "charcnn_large"))
    assert small.config.fields == (1014 - 96) // 27 == 34
    assert small.fc1.in_features == 34 * 256 and large.fc1.in_features == 34 * 1024
    with pytest.raises(UsageError, match="leave nothing of a text so short"):
        create_model("charcnn_nano", context=100)


def test_recurrent_classifiers_compute_what_torch_computes() -> None:
    torch.manual_seed(0)
    model: Any = create_model("lstm_classifier_nano", vocabulary=30, num_classes=3).eval()
    tokens = torch.randint(1, 30, (1, 7))
    _, (last, _) = torch.nn.LSTM.forward(model.rnn, model.token(tokens))
    assert torch.allclose(model.features(tokens), last[0], atol=1e-6)
    attends: Any = create_model("bilstm_attention_nano", vocabulary=30, num_classes=3).eval()
    states, weights = attends.read(attends.token(tokens), tokens > 0)
    by_hand = sum(weights[0, t] * states[0, t] for t in range(7))
    assert torch.allclose(attends.features(tokens)[0], torch.tanh(by_hand), atol=1e-6)
    assert float(weights.detach().sum()) == pytest.approx(1, abs=1e-6)


def test_words_are_left_out_of_a_mean_in_training_alone() -> None:
    torch.manual_seed(0)
    model: Any = create_model("dan_nano", vocabulary=30, num_classes=3, word_dropout=0.5)
    tokens = torch.randint(1, 30, (4, 12))
    assert not torch.equal(model.train().features(tokens), model.features(tokens))
    assert torch.equal(model.eval().features(tokens), model.features(tokens))
