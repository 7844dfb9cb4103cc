"""Captions that are not right: what is said of them, in one or two lines, and what is left when they are skipped."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchard.data import Preprocess
from orchard.data.captions import CaptionSettings, Columns, PairLoader, open_captions, read_prompts, write_row
from orchard.data.captions import index as index_module
from orchard.data.captions import tsv as tsv_module
from orchard.data.captions.listing import read_listing
from orchard.errors import OrchardError, UsageError

SKIP = CaptionSettings(bad_records="skip")
PREPROCESS = Preprocess((8, 8), 3, (0.5,) * 3, (0.5,) * 3, resize="stretch")


def row(number: int) -> str:
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    return write_row(str(number), f"text {number}", Image.fromarray(pixels))


def refused(
    source: Path | str, settings: CaptionSettings | None = None, error: type[OrchardError] = OrchardError
) -> str:
    """The message with which a set is refused, which has one or two lines."""
    with pytest.raises(error) as caught:
        open_captions(str(source), settings or CaptionSettings())
    message = str(caught.value)
    assert 1 <= len(message.splitlines()) <= 2
    return message


PICTURE = row(0).split("\t")[2].strip()
BAD = {
    b"4\ttext": "2 fields, where there should be 3",
    b"4\ta\ttab\t" + PICTURE.encode(): "4 fields, where there should be 3; a text with tabs",
    b"4\t  \t" + PICTURE.encode(): "the text is empty",
    "4\tgrün\t".encode("latin-1") + PICTURE.encode(): "the text is not UTF-8",
    b"4\ttext\t": "the picture is empty",
    b"4\ttext\tphotos/4.png": "the picture is not base64: 'photos/4.png'",
    b"4\ttext\t" + PICTURE.encode()[:101]: "the picture is not base64",
    b"4\ttext\taGVsbG8gd29ybGQsIGhvdyBhcmUgeW91Pw==": "base64, but of no picture: 'aGVsbG8gd29ybGQsIGhvdyBh...'",
    b"4\ttext\tiVBORw0KGgoAAAA": "not a picture in a format that is read",
}


@pytest.mark.parametrize("header", ["", "idx\ttext\timage\n"])
@pytest.mark.parametrize("line", BAD)
def test_a_bad_row_is_refused_with_its_line_or_left_out(tmp_path, line, header):
    path = tmp_path / "x.tsv"
    good = [row(number).encode() for number in range(6)]
    path.write_bytes(header.encode() + b"".join(good[:3]) + line + b"\n" + b"".join(good[3:]))
    number = 5 if header else 4
    message = refused(path)
    assert message.startswith(f"{path}, line {number}: ") and BAD[line] in message and "bad_records=skip" in message
    data = open_captions(str(path), SKIP)
    assert sum(len(split) for split in data.splits.values()) == 6
    (problem,) = data.problems
    assert problem.key == f"{path}, line {number}" and BAD[line] in problem.what and problem.what.endswith("left out")
    for split in data.splits.values():
        for index in range(len(split)):
            line_number = int(split.idx(index)) + 1 + bool(header) + (int(split.idx(index)) >= 3)
            assert split.key(index).endswith(f", line {line_number}")


def test_the_first_row_may_be_bad(tmp_path):
    (tmp_path / "x.tsv").write_text("nr\twords\tno picture\n" + row(1) + row(2) + row(3))
    message = refused(tmp_path / "x.tsv")
    assert "line 1: the picture is not base64: 'no picture'; if this line names the columns, say" in message


def test_a_picture_that_breaks_off_shows_when_it_is_read(tmp_path):
    path = tmp_path / "x.tsv"
    idx, text, picture = row(2).rstrip().split("\t")
    path.write_text(row(0) + row(1) + f"{idx}\t{text}\t{picture[:160]}\n" + row(3) + row(4))
    split = open_captions(str(path), CaptionSettings(test_fraction=0, validation_fraction=0.2)).splits["train"]
    at = [split.idx(index) for index in range(len(split))].index("2")
    with pytest.raises(OrchardError, match=r"x\.tsv, line 3: "), split.open(at) as opened:
        opened.load()
    with pytest.raises(OrchardError, match=r"x\.tsv, line 3: "):
        list(PairLoader(split, PREPROCESS, None, batch_size=2, seed=0, workers=0).batches(0))
    data = open_captions(str(path), SKIP)
    assert [problem.key for problem in data.problems] == [f"{path}, line 3"]


def test_a_sample_of_many_pictures_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(tsv_module, "_ALL_LOOKED_AT", 5)
    (tmp_path / "x.tsv").write_text("".join(map(row, range(10))))
    data = open_captions(str(tmp_path / "x.tsv"), CaptionSettings())
    assert not data.splits["train"].small and data.channels == 3
    (tmp_path / "x.tsv").write_text("".join(map(row, range(9))) + "9\ttext\tiVBORw0KGgoAAAA\n")
    assert "line 10: not a picture" in refused(tmp_path / "x.tsv")


def test_many_bad_rows_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "MAX_LISTED", 2)
    (tmp_path / "x.tsv").write_text("".join(map(row, range(5))) + "7\t\tx\n" * 6)
    data = open_captions(str(tmp_path / "x.tsv"), SKIP)
    assert len(data.problems) == 3 and data.problems[-1].what == "4 more rows are bad; left out"


def test_files_that_are_no_picture_tsvs(tmp_path):
    path = tmp_path / "x.tsv"
    for content, said in {
        b"": "is empty; expected idx<TAB>text<TAB>picture",
        b"1\tcat\n2\tdog\n": "no column holds pictures in base64",
        "1\tcat\n".encode("utf-16"): "is UTF-16; save it as UTF-8",
        f"{PICTURE}\t{PICTURE}\ttext\n".encode(): "several columns could be the picture",
        b"idx\ttext\timage\n": "has no row that can be read",
    }.items():
        path.write_bytes(content)
        message = refused(path)
        assert str(path) in message and said in message
    path.write_text("a\tb\tc\t" + PICTURE + "\n")
    assert "3 of 4 columns could be the text; say which with --set data.columns.text" in refused(path, error=UsageError)
    (tmp_path / "x.tsv.gz").write_bytes(gzip.compress(row(1).encode())[:-20])
    assert "x.tsv.gz is damaged" in refused(tmp_path / "x.tsv.gz")


def test_all_rows_bad(tmp_path):
    (tmp_path / "x.tsv").write_text(f"1\t\t{PICTURE}\n" * 3)
    assert "no row that can be read" in refused(tmp_path / "x.tsv", SKIP)
    assert "line 1: the text is empty" in refused(tmp_path / "x.tsv", SKIP)


def test_columns_that_are_not_there(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("idx\ttext\timage\n" + row(1) + row(2))

    def said(**columns) -> str:
        return refused(path, CaptionSettings(columns=Columns(**columns)), UsageError)

    assert "data.columns.text=4, but there are columns 1 to 3" in said(text=4)
    assert "0 columns are named 'titel'; the first line has idx, text, image" in said(text="titel")
    assert "one column cannot be two things" in said(text="image")
    settings = CaptionSettings(columns=Columns(text="text"), header="no")
    assert "is a name, but data.header=no" in refused(path, settings, UsageError)


def test_a_file_that_changed_after_it_was_opened(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("".join(map(row, range(5))))
    split = open_captions(str(path), CaptionSettings()).splits["train"]
    path.write_text("short\n")
    with pytest.raises(OrchardError, match=r"the file has changed since it was opened"):
        split.text(len(split) - 1)
    path.unlink()
    with pytest.raises(OrchardError, match=r"line \d: No such file"):
        split.text(0)


def test_names_of_files_and_splits(tmp_path):
    for name in ("a.train.tsv", "b.train.tsv"):
        (tmp_path / name).write_text(row(1) + row(2))
    assert "holds several sets, a.*, b.*; name one" in refused(tmp_path, error=UsageError)
    (tmp_path / "b.train.tsv").rename(tmp_path / "rest.tsv")
    assert "not that of" in refused(f"{tmp_path}/*.tsv", error=UsageError)
    (tmp_path / "a.train.tsv").rename(tmp_path / "a.val.tsv")
    (tmp_path / "rest.tsv").rename(tmp_path / "a.test.tsv")
    assert "no file of" in refused(f"{tmp_path}/a.*.tsv", error=UsageError)
    assert "there is no file or folder" in refused(f"{tmp_path}/x.*.tsv", error=UsageError)
    assert "did you mean digits" in refused("digit", error=UsageError)
    (tmp_path / "x.pdf").write_text("")
    assert "x.pdf holds no pictures with captions" in refused(tmp_path / "x.pdf", error=UsageError)


# Folders


@pytest.fixture
def photos(tmp_path) -> Path:
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (70, 80, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.jpg")
    (tmp_path / "captions.txt").write_text("".join(f"{number}.jpg#0\tpicture {number}\n" for number in range(6)))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "where", "said"),
    [
        ("9.jpg#0\tpicture 9", "line 7", "there is no picture 9.jpg"),
        ("a sentence alone", "line 7", "no picture's name at the beginning: 'a sentence alone'"),
        ("1.jpg#1\t ", "line 7", "the caption is empty"),
    ],
)
def test_bad_lines_of_captions(photos, line, where, said):
    with (photos / "captions.txt").open("a") as file:
        file.write(line + "\n")
    message = refused(photos)
    assert f"captions.txt, {where}: {said}" in message and "bad_records=skip" in message
    data = open_captions(str(photos), SKIP)
    assert sum(len(split) for split in data.splits.values()) == 6 and said in data.problems[0].what


def test_pictures_that_cannot_be_read_and_pictures_without_captions(photos):
    (photos / "3.jpg").write_bytes(b"nothing")
    assert "1 of 6 pictures cannot be read: 3.jpg: not a picture" in refused(photos)
    (photos / "extra.png").write_bytes((photos / "1.jpg").read_bytes())
    data = open_captions(str(photos), SKIP)
    assert sum(len(split) for split in data.splits.values()) == 5
    assert {problem.key for problem in data.problems} == {"3.jpg", "extra.png"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metadata.jsonl", '{"file_name": "1.jpg", "text": "a"}\nnot json\n', "line 2: not JSON"),
        ("metadata.jsonl", '{"file_name": "1.jpg"}\n', "line 1: expected an object with file_name or"),
        ("captions.csv", "image,caption\n1.jpg,a,b\n", "line 2: 3 fields, where the header has 2"),
        ("captions.csv", "bild,caption\n1.jpg,a\n", "no columns could be the picture"),
        ("captions.txt", "1.jpg gr\udcfcn\n", "line 1: this is not UTF-8"),
    ],
)
def test_bad_files_of_captions(photos, name, content, said):
    (photos / "captions.txt").unlink()
    (photos / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    assert said in refused(photos)


def test_which_captions(photos):
    (photos / "captions.csv").write_text("image,caption\n")
    assert "several files of captions, captions.csv, captions.txt" in refused(photos, error=UsageError)
    for name in ("captions.csv", "captions.txt"):
        (photos / name).unlink()
    assert "has no captions; expected pictures with captions.txt" in refused(photos)


# Named sets and prompts


def test_languages_and_templates():
    message = refused("digits", CaptionSettings(templates=("no place",)), UsageError)
    assert "wordings with {}" in message
    assert "fashion-mnist:FOLDER" in refused("fashion-mnist", error=UsageError)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"1\ta\n2\n", "line 2: 1 fields, where there should be 2"),
        (b"1\ta\n2\tb\tc\n", "line 2: 3 fields"),
        (b"1\ta\n2\t \n", "line 2: the text is empty"),
        (b"1\ta\n\tb\n", "line 2: the idx is empty"),
        (b"1\ta\n1\tb\n", "line 2: idx '1' was there before"),
        (b"1\ta\n2\tgr\xfcn\n", "line 2: this is not UTF-8"),
        (b"", "has no text to paint"),
    ],
)
def test_bad_prompts(tmp_path, content, said):
    path = tmp_path / "p.tsv"
    path.write_bytes(content)
    with pytest.raises(OrchardError, match=said):
        read_prompts(path, CaptionSettings())
    if content:
        prompts, problems = read_prompts(path, SKIP)
        assert prompts == [("1", "a")] and len(problems) == 1


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("a.csv", '0.jpg,"a dog, black"\n1.jpg,"say ""no"""\n2.jpg,c\n', ["a dog, black", 'say "no"', "c"]),
        ("a.csv", '"0.jpg","a dog"\n"1.jpg","two\nlines"\n2.jpg,one, two\n', ["a dog", "two\nlines", "one, two"]),
        ("a.csv", 'file,text\n0.jpg,"a dog, black"\n1.jpg,"b ""c"""\n2.jpg,d\n', ["a dog, black", 'b "c"', "d"]),
        ("a.txt", '0.jpg,"a dog, black"\n1.jpg,say "no"\n2.jpg,d\n', ["a dog, black", 'say "no"', "d"]),
        ("a.txt", '0.jpg#0\t"a" or "b"\n1.jpg#0\t"a quote"\n2.jpg#0\td\n', ['"a" or "b"', '"a quote"', "d"]),
    ],
)
def test_quotes_of_a_csv_are_undone_with_a_header_and_without(name: str, content: str, texts: list[str]) -> None:
    pairs, problems = read_listing(name, content.encode(), CaptionSettings())
    assert [(picture, text) for picture, text, _ in pairs] == [(f"{n}.jpg", text) for n, text in enumerate(texts)]
    assert not problems
