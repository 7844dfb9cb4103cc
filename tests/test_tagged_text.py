"""Tagged text: schemes of tags, files in columns and JSON lines, splits, and what is wrong with a record."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from commands import orchard

from orchard.data.kinds import kind_by_look, kind_named
from orchard.data.settings import TaggedTextSource
from orchard.data.tagged_text import open_tagged
from orchard.data.tagged_text.tags import as_bio, entities_of, faults_of, find_scheme, strict_entities
from orchard.errors import OrchardError, UsageError
from orchard.tasks.registry import task_learned

BIO = ["B-PER", "I-PER", "O", "B-LOC", "B-LOC", "O"]
SAME = {  # two people's names, a place and another right behind it
    "BIO": BIO,
    "IOB1": ["I-PER", "I-PER", "O", "I-LOC", "B-LOC", "O"],
    "BIOES": ["B-PER", "E-PER", "O", "S-LOC", "S-LOC", "O"],
    "BMES": ["B-PER", "M-PER", "E-PER", "O", "B-LOC", "E-LOC"],
    "BILOU": ["B-PER", "L-PER", "O", "U-LOC", "U-LOC", "O"],
    "IO": ["I-PER", "I-PER", "O", "I-LOC", "O", "O"],
    "plain": ["NN", "NNP", "O", "VB", "B-NN", "RB"],
}
WORDS = ("Ada", "Lovelace", "visits", "Paris", "London", "today")
TRAIN = [(WORDS, BIO), (("She", "sleeps"), ["O", "O"]), (("Paris", "sleeps"), ["B-LOC", "O"])] * 8


def settings(**changes: Any) -> TaggedTextSource:
    return TaggedTextSource.model_validate({"source": "", **changes})


def whole(**changes: Any) -> TaggedTextSource:
    return settings(**changes).for_evaluation(whole=True)


def columns(sentences: Any, separator: str = "\t") -> str:
    return "\n".join("".join(f"{w}{separator}{t}\n" for w, t in zip(*one, strict=True)) for one in sentences)


@pytest.mark.parametrize("scheme", SAME)
def test_schemes_are_found_and_mean_the_same(scheme: str) -> None:
    tags = SAME[scheme]
    assert find_scheme([tags, ["O"]]) == scheme
    assert faults_of(tags, scheme) == []
    if scheme in ("BIO", "IOB1", "BIOES", "BILOU"):
        assert as_bio(entities_of(tags), len(tags)) == tuple(BIO)


def test_tags_that_cannot_be_are_read_as_seqeval_reads_them() -> None:
    tags = ["O", "I-PER", "I-PER", "I-LOC", "B-LOC", "O"]
    assert entities_of(tags) == [("PER", 1, 3), ("LOC", 3, 4), ("LOC", 4, 5)]
    assert strict_entities(tags) == [("LOC", 4, 5)]
    assert [place for place, _ in faults_of(tags, "BIO")] == [1, 3]
    assert [place for place, _ in faults_of(["B-PER", "O", "E-LOC", "S-PER", "M-PER"], "BMES")] == [1, 2, 4, 4]


@pytest.mark.parametrize("ending", [".conll", ".bio.gz", ".tsv", ".jsonl", ".jsonl.gz"])
def test_files_of_a_folder_are_its_splits(ending: str, tmp_path: Path) -> None:
    for split, sentences in (("train", TRAIN), ("dev", TRAIN[:2]), ("test", TRAIN[:1])):
        if ending.startswith(".jsonl"):
            text = "".join(json.dumps({"id": 1, "tokens": w, "ner_tags": t}) + "\n" for w, t in sentences)
        else:
            text = "-DOCSTART- -X-\n\n# id 7\n" + columns(sentences, "\t" if "tsv" in ending else " NN  ") + "\n\n"
        raw = text.encode()
        (tmp_path / f"my.{split}{ending}").write_bytes(gzip.compress(raw) if ending.endswith("gz") else raw)
    (tmp_path / "README.md").write_text("about")
    assert (kind := kind_by_look(str(tmp_path))) and kind.name == "tagged-text"
    data = open_tagged(str(tmp_path), settings())
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 24, "validation": 2, "test": 1}
    assert data.classes == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER") and data.scheme == "BIO" and not data.problems
    first = data.splits["test"].record(0)
    assert (first.words, list(first.tags)) == (WORDS, BIO) and "my.test" in first.key and not data.characters


def test_one_file_is_split_by_content(tmp_path: Path) -> None:
    path = tmp_path / "all.bmes"
    path.write_text(
        columns([((*"吴重阳，在", str(n)), ["B-NAME", "M-NAME", "E-NAME", "O", "O", "O"]) for n in range(60)], " ")
    )
    data = open_tagged(str(path), settings())
    assert data.scheme == "BMES" and sum(map(len, data.splits.values())) == 60
    marks = {name: set(split.marks().tolist()) for name, split in data.splits.items()}
    assert len(marks) == 3 and not marks["train"] & (marks["validation"] | marks["test"])
    assert data.splits["train"].record(0).tags[:4] == ("B-NAME", "I-NAME", "I-NAME", "O")
    assert open_tagged(str(path), settings()).fingerprint == data.fingerprint
    path.write_text(path.read_text() + "\n新\tO\n")
    moved = open_tagged(str(path), settings())
    assert moved.fingerprint != data.fingerprint and set(moved.splits["test"].marks()) >= marks["test"]


def test_words_may_begin_with_a_hash_and_have_spaces(tmp_path: Path) -> None:
    path = tmp_path / "tweets.conll"
    path.write_text("#sale\tO\nNew York\tB-LOC\n\n# sent 2\n#\tO\nRome\tB-LOC\n")
    data = open_tagged(str(path), whole())
    assert [one.words for one in data.splits["test"].sentences] == [("#sale", "New York"), ("#", "Rome")]


BAD = {
    "She\n": r"line 4: one column, 'She'; expected a word and its tag",
    "She\tO\tO\n": r"line 4: 3 columns; the lines before have 2",
    "\tO\n": r"line 4: its word or its tag is empty",
    "She\tX-PER\n": r"line 4: its tag 'X-PER' is neither O nor a prefix with a type",
    "Sh\xe9\tO\n": r"line 4: it is not UTF-8",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_lines_are_refused_by_place_or_left_out(line: str, tmp_path: Path) -> None:
    path = tmp_path / "train.conll"
    path.write_bytes(f"Ada\tB-PER\n\nOh\tO\n{line}so\tO\n\nParis\tB-LOC\n".encode("latin-1"))
    with pytest.raises(OrchardError, match=BAD[line]) as caught:
        open_tagged(str(path), whole())
    assert str(path) in str(caught.value) and "data.bad_records=skip" in str(caught.value)
    data = open_tagged(str(path), whole(bad_records="skip"))
    assert [one.words for one in data.splits["test"].sentences] == [("Ada",), ("Paris",)]
    assert len(data.problems) == 1 and "left out" in data.problems[0].what


def test_tags_that_training_has_not_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.conll").write_text(columns(TRAIN))
    (tmp_path / "valid.conll").write_text("Acme\tB-ORG\n\nHe\tO\n")
    with pytest.raises(OrchardError, match=r"valid\.conll, line 1: its sentence has the tag B-ORG, which no training"):
        open_tagged(str(tmp_path), settings())
    assert len(open_tagged(str(tmp_path), settings(bad_records="skip")).splits["validation"]) == 1


def test_json_lines_say_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    good = json.dumps({"tokens": ["Ada"], "tags": ["B-PER"]})
    for bad, said in (
        ({"tokens": ["Ada"], "ner_tags": [1]}, "1 is among its tags; .* numbers need names"),
        ({"tokens": ["Ada", "x"], "tags": ["O"]}, "2 words and 1 tags"),
        ({"words": ["Ada"]}, "no list of tags; expected one named ner_tags or"),
    ):
        path.write_text(good + "\n" + json.dumps(bad) + "\n")
        with pytest.raises(OrchardError, match=f"line 2: {said}"):
            open_tagged(str(path), settings())
    path.write_text(good + "\n{\n")
    with pytest.raises(OrchardError, match="line 2: it is no JSON"):
        open_tagged(str(path), settings())


def test_wrong_calls_are_usage_errors(tmp_path: Path) -> None:
    for source, said in (
        ("wnut17", "needs a folder"),
        (str(tmp_path / "no"), "there is no file"),
        (str(tmp_path), "no file of"),
    ):
        with pytest.raises(UsageError, match=said):
            open_tagged(source, settings())
    with pytest.raises(OrchardError, match=r"wnut17\.train\.conll is missing"):
        open_tagged(f"wnut17:{tmp_path}", settings())
    (tmp_path / "train.conll").write_text(columns(TRAIN))
    with pytest.raises(UsageError, match=r"data\.tag_column is 3"):
        open_tagged(str(tmp_path), settings(tag_column=3))


def test_objects_are_read_as_files_are() -> None:
    class Names:
        feature = type("ClassLabel", (), {"names": ["O", "B-LOC"]})

    class Set(list[Any]):
        features = {"tokens": None, "ner_tags": Names()}  # noqa: RUF012

    kind = kind_named("tagged-text")
    given = kind.take({"train": TRAIN, "test": TRAIN[:2]})
    data = kind.load(kind.open)(given, settings())
    assert data.classes == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER") and len(data.splits["test"]) == 2
    records = Set([{"tokens": ["Rome", "x"], "ner_tags": [1, 0]}] * 30)
    found = kind.load(kind.open)(kind.take(records), whole())
    assert found.splits["test"].record(3).tags == ("B-LOC", "O")
    assert open_tagged(kind.take(records), whole()).source != open_tagged(kind.take(Set(records[:-1])), whole()).source
    assert kind.is_of(TRAIN) and not kind.is_of(["text"]) and not kind.is_of(3)
    with pytest.raises(UsageError, match="no list of words with a list of tags"):
        kind.take([("text", "label")])


def test_data_check_counts_entities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.conll").write_text(columns([*TRAIN, (("in", "Rome"), ["O", "I-LOC"])]))
    (tmp_path / "dev.conll").write_text(columns([(("Paris", "sleeps"), ["O", "O"])]) + "\none\n")
    (tmp_path / "test.conll").write_text(columns(TRAIN[:1]))
    assert orchard("data", "check", tmp_path, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["counts"]["train"] == {"sentences": 25, "words": 82, "LOC": 25, "PER": 8}
    assert any("I-LOC follows O" in line for line in said["problems"])
    assert any("one column" in line for line in said["problems"])
    assert {*said["lists"]} == {"sentence with several taggings", "sentence in several splits", "note"}
    assert orchard("data", "check", tmp_path) == 0
    assert "tagged-text" not in capsys.readouterr().err


def test_a_folder_of_tags_is_no_other_tasks(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("Just a text.\nNothing else is in it.\n")
    assert kind_by_look(str(tmp_path)) is None
    (tmp_path / "train.txt").write_text(columns(TRAIN, " "))
    assert task_learned("gpt2_nano", str(tmp_path)).name == "text-generation"  # whose card has no other tasks
