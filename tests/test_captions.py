"""Pictures with captions: TSVs with pictures in base64, folders, named sets, batches of pairs."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from orchard.data import AugmentSettings, Loader, Preprocess, default_preprocess
from orchard.data.captions import (
    CaptionSettings,
    Columns,
    PairLoader,
    cache,
    open_captions,
    picture_to_base64,
    prompts,
    read_prompts,
    write_row,
)
from orchard.data.captions import index as index_module
from orchard.data.captions.fields import picture_bytes, split_fields
from orchard.data.captions.folder import FolderSplit
from orchard.data.captions.listing import read_listing
from orchard.data.captions.templates import WORDINGS
from orchard.data.captions.tsv import TsvSplit

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
PREPROCESS = Preprocess((8, 8), 3, (0.5,) * 3, (0.5,) * 3, resize="stretch")
WHOLE = CaptionSettings(test_fraction=0, validation_fraction=0.01)


def picture(number: int, side: int = 8) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8))


def encoded(number: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture(number).save(file, format=kind)
    return file.getvalue()


def rows(count: int, first: int = 0) -> str:
    return "".join(write_row(str(n), f"text {n}", picture(n)) for n in range(first, first + count))


def everything(data) -> dict[str, np.ndarray]:
    """Text → pixels over all splits."""
    found = {}
    for split in data.splits.values():
        for index in range(len(split)):
            with split.open(index) as opened:
                found[split.text(index)] = np.asarray(opened.convert("RGB"))
    return found


# TSVs


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG"])
def test_base64_standard_and_url_safe_padded_or_not(tmp_path, encode, padded, kind):
    lines = []
    for number in range(12):
        text = encode(encoded(number, kind)).decode()
        lines.append(f"{number}\ttext {number}\t{text if padded else text.rstrip('=')}\n")
    (tmp_path / "x.tsv").write_text("".join(lines))
    data = open_captions(str(tmp_path / "x.tsv"), WHOLE)
    found = everything(data)
    assert len(found) == 12 and data.channels == 3 and data.format == "picture TSV"
    for number in range(12):
        expected = np.asarray(Image.open(io.BytesIO(encoded(number, kind))).convert("RGB"))
        assert np.array_equal(found[f"text {number}"], expected)


def test_rows_are_found_by_line_whatever_stands_between_them(tmp_path):
    lines = rows(9).splitlines(keepends=True)
    lines.insert(4, "\r\n")
    lines.insert(0, "idx\tText\timgbase64\n")
    content = "".join(lines).rstrip("\n").replace("\n", "\r\n").encode("utf-8-sig")
    (tmp_path / "x.tsv").write_bytes(content)
    data = open_captions(str(tmp_path / "x.tsv"), WHOLE)
    assert len(everything(data)) == 9
    split = data.splits["train"]
    for index in range(len(split)):
        number = int(split.idx(index))
        line = number + (2 if number < 4 else 3)
        assert split.key(index) == f"{tmp_path / 'x.tsv'}, line {line}" and split.text(index) == f"text {number}"
    assert not split.labels.any() and split.small and split.image(0).shape == (3, 8, 8)
    with pytest.raises(IndexError):
        split.text(len(split))


@pytest.mark.parametrize(
    ("header", "order", "columns"),
    [
        (None, ("text", "picture"), Columns()),
        (None, ("picture", "text"), Columns()),
        (None, ("idx", "text", "picture"), Columns()),
        (None, ("picture", "idx", "text"), Columns()),
        (None, ("text", "idx", "picture"), Columns(text=1)),
        ("caption\timage\tid", ("text", "picture", "idx"), Columns()),
        ("frage\tbild\tnr", ("text", "picture", "idx"), Columns(text="frage", picture="Bild")),
        ("a\tb\tc\td", ("idx", "idx", "picture", "text"), Columns(text="d")),
    ],
)
def test_columns_by_looking_by_header_and_by_word(tmp_path, header, order, columns):
    lines = [header] if header else []
    for number in range(6):
        cells = {"idx": f"n{number}", "text": f"text {number}", "picture": picture_to_base64(picture(number))}
        lines.append("\t".join(cells[role] for role in order))
    (tmp_path / "x.tsv").write_text("\n".join(lines))
    data = open_captions(str(tmp_path / "x.tsv"), CaptionSettings(columns=columns))
    assert set(everything(data)) == {f"text {n}" for n in range(6)}


def test_settings_say_whether_there_is_a_header(tmp_path):
    (tmp_path / "x.tsv").write_text("nr\twords\tpic\n" + rows(5))
    data = open_captions(str(tmp_path / "x.tsv"), CaptionSettings(header="yes"))
    assert len(everything(data)) == 5


def test_texts_with_tabs_and_quotes(tmp_path):
    texts = ["a\ttab", 'she said "no"', '"all of it"', '"half', 'an "inch"\tand a tab', '12" wide', '""', "plain"]
    (tmp_path / "x.tsv").write_text("".join(write_row(str(n), t, picture(n)) for n, t in enumerate(texts)))
    assert set(everything(open_captions(str(tmp_path / "x.tsv"), CaptionSettings()))) == set(texts)


def test_a_line_is_cut_at_every_tab_where_that_gives_the_right_number_of_fields():
    assert split_fields(b'1\t"half\tother" half', 3) == [b"1", b'"half', b'other" half']
    assert split_fields(b'1\t"a\tb"\tc', 3) == [b"1", b"a\tb", b"c"]
    assert split_fields(b'"1"\t"say ""a"""\tc', 3) == [b"1", b'say "a"', b"c"]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1).filter(str.strip))
def test_every_text_comes_back(text):
    line = write_row("1", text, Image.new("L", (1, 1))).encode()
    assert line.count(b"\n") == 1
    assert split_fields(line[:-1], 3)[1].decode() == text


@given(st.binary(min_size=1, max_size=40), st.booleans(), st.booleans())
def test_every_content_comes_back(content, safe, padded):
    field = (base64.urlsafe_b64encode if safe else base64.b64encode)(content)
    assert picture_bytes(field if padded else field.rstrip(b"=")) == content


def test_a_packed_file_gives_what_the_file_gives(tmp_path):
    (tmp_path / "x.tsv").write_text(rows(7))
    (tmp_path / "x.tsv.gz").write_bytes(gzip.compress((tmp_path / "x.tsv").read_bytes()))
    plain, packed = (open_captions(str(tmp_path / name), CaptionSettings()) for name in ("x.tsv", "x.tsv.gz"))
    one, other = everything(plain), everything(packed)
    assert one.keys() == other.keys() and all(np.array_equal(one[text], other[text]) for text in one)
    assert packed.splits["train"].key(0).startswith(f"{tmp_path / 'x.tsv.gz'}, line ")


def test_splits_by_the_names_of_files(tmp_path):
    for number, word in enumerate(("train", "val", "test")):
        (tmp_path / f"x.{word}.tsv").write_text(rows(4 + number, first=10 * number))
    (tmp_path / "notes.tsv").write_text("a\tb\n")
    expected = {"train": 4, "validation": 5, "test": 6}
    sources = (
        f"{tmp_path}/x.*.tsv",
        str(tmp_path),
        ",".join(str(tmp_path / f"x.{w}.tsv") for w in ("test", "train", "val")),
    )
    marks = set()
    for source in sources:
        data = open_captions(source, CaptionSettings())
        assert {name: len(split) for name, split in data.splits.items()} == expected
        assert data.splits["test"].text(0) == "text 20"
        marks.add(data.fingerprint)
    assert len(marks) == 1
    (tmp_path / "x.val.tsv").unlink()
    data = open_captions(str(tmp_path), CaptionSettings(validation_fraction=0.25))
    assert len(data.splits["train"]) + len(data.splits["validation"]) == 4 and len(data.splits["test"]) == 6
    assert [problem.key for problem in data.problems] == [str(tmp_path / "notes.tsv")]


def test_parts_of_one_table_are_read_one_after_the_other(tmp_path):
    for number in range(3):
        (tmp_path / f"part-{number}.tsv").write_text(rows(5, first=5 * number))
    data = open_captions(f"{tmp_path}/part-*.tsv", CaptionSettings(validation_fraction=0.2, test_fraction=0.2))
    assert list(data.splits) == ["train", "validation", "test"]
    assert len(everything(data)) == 15
    again = open_captions(f"{tmp_path}/part-*.tsv", CaptionSettings(validation_fraction=0.2, test_fraction=0.2))
    assert again.fingerprint == data.fingerprint
    (tmp_path / "part-2.tsv").write_text(rows(5, first=11))
    other = open_captions(f"{tmp_path}/part-*.tsv", CaptionSettings(validation_fraction=0.2, test_fraction=0.2))
    assert other.fingerprint != data.fingerprint


def test_an_index_is_kept_and_made_anew_when_the_file_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "_CACHED", 0)
    monkeypatch.setenv("ORCHARD_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "x.tsv"
    path.write_text(rows(6) + "\n")
    told: list[tuple[int, int]] = []
    first = open_captions(str(path), CaptionSettings(), lambda *place: told.append(place))
    assert told == [(path.stat().st_size,) * 2]
    second = open_captions(str(path), CaptionSettings(), lambda *place: told.append(place))
    assert len(told) == 1 and second.fingerprint == first.fingerprint
    assert everything(second).keys() == everything(first).keys()
    path.write_text(rows(7))
    assert len(everything(open_captions(str(path), CaptionSettings()))) == 7


@pytest.mark.parametrize("full", ["from the start", "after a while", "at the end", "never"])
def test_an_index_goes_to_disk_as_it_grows_and_does_without_where_that_is_full(tmp_path, monkeypatch, full):
    folder = tmp_path / "cache" / "index"
    if full == "from the start":
        (tmp_path / "cache").write_text("not a folder")

    opened = Path.open

    def no_room(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with cache.Making(folder, offsets="q", passed="q") as making:
        offsets = making.arrays["offsets"]  # bound once, as those do who fill it
        for number in range(1000):
            offsets.append(number)
            if number == 500 and full == "after a while":
                monkeypatch.setattr(Path, "open", lambda path, mode: (no_room if mode == "ab" else opened)(path, mode))
            if number % 100 == 0:
                making.spill()
                assert len(making.arrays["offsets"]) == (0 if making.scratch else number + 1)
        if full == "at the end":
            monkeypatch.setattr(Path, "rename", no_room)
        index = making.done({"said": "so"})
    assert index.arrays["offsets"].tolist() == list(range(1000)) and index.arrays["passed"].tolist() == []
    kept = cache.load(folder)
    assert (kept is not None) == (full == "never")
    assert [path for path in tmp_path.rglob("*") if path.suffix == ".part"] == []
    if kept:
        assert kept.facts == index.facts == {"said": "so"}
        for name in ("offsets", "facts.json"):
            good = (folder / name).read_bytes()
            for bad in (
                b"",
                good[:-8],
                good + b"?",
                good[:100] + bytes([good[100] ^ 1]) + good[101:],
                b"{}",
                b"[" * 9**5,
            ):
                (folder / name).write_bytes(bad)
                assert cache.load(folder) is None
            (folder / name).write_bytes(good)
        assert cache.load(folder) is not None


@pytest.mark.skipif(not (SHARED / "emoji").exists(), reason="the emoji set is not beside the checkout")
def test_emoji_in_two_languages():
    english, chinese = (open_captions(f"{SHARED}/emoji/emoji_{lang}.*.tsv", CaptionSettings()) for lang in ("en", "zh"))
    for data in (english, chinese):
        assert [len(split) for split in data.splits.values()] == [1486, 82, 82]
        assert data.channels == 3 and data.splits["train"].small and not data.problems
    assert english.splits["train"].text(0) == "keycap: #" and chinese.splits["train"].text(0) == "按键: #"
    with english.splits["test"].open(5) as one, chinese.splits["test"].open(5) as other:
        assert one.size == (64, 64) and one.tobytes() == other.tobytes()


# Folders


def make_pictures(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        picture(number, 80).save(folder / name)


NAMED = [f"{number}.jpg" for number in range(8)]
LISTINGS = {
    "captions.txt": "".join(f"{name}#{turn}\t{name} said {turn}\n" for name in NAMED for turn in "01"),
    "flickr8kzhm.captions.txt": "".join(f"{name}#zhm#{turn} {name} said {turn}\n" for name in NAMED for turn in "01"),
    "captions.csv": "image,caption\n" + "".join(f'{name},"{name} said {turn}"\n' for name in NAMED for turn in "01"),
    "metadata.csv": "file_name,text\n" + "".join(f"{name},{name} said {turn}\n" for name in NAMED for turn in "01"),
    "metadata.jsonl": "".join(
        json.dumps({"file_name": name, "text": [f"{name} said {turn}" for turn in "01"]}) + "\n" for name in NAMED
    ),
}


@pytest.mark.parametrize("listing", LISTINGS)
@pytest.mark.parametrize("below", ["", "Images"])
def test_a_folder_with_captions(tmp_path, listing, below):
    make_pictures(tmp_path / below, NAMED)
    (tmp_path / listing).write_text(LISTINGS[listing])
    for source in (tmp_path, tmp_path / listing):
        data = open_captions(str(source), CaptionSettings(validation_fraction=0.25, test_fraction=0.25))
        assert list(data.splits) == ["train", "validation", "test"] and sum(map(len, data.splits.values())) == 8
        for split in data.splits.values():
            assert isinstance(split, FolderSplit)
            for index in range(len(split)):
                name = Path(split.key(index)).name
                assert split.texts(index) == (f"{name} said 0", f"{name} said 1")
                with split.open(index) as opened:
                    assert opened.size == (80, 80)


def test_a_zip_archive_and_a_file_of_captions_by_any_name(tmp_path):
    make_pictures(tmp_path / "photos", NAMED)
    (tmp_path / "photos" / "zh_human.txt.gz").write_bytes(gzip.compress(LISTINGS["captions.txt"].encode()))
    data = open_captions(str(tmp_path / "photos" / "zh_human.txt.gz"), CaptionSettings())
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name in NAMED:
            archive.write(tmp_path / "photos" / name, name)
        archive.writestr("captions.txt", LISTINGS["captions.txt"])
    packed = open_captions(str(tmp_path / "photos.zip"), CaptionSettings())
    assert packed.fingerprint == data.fingerprint and sum(map(len, packed.splits.values())) == 8
    with packed.splits["train"].open(0) as opened:
        assert opened.size == (80, 80)


@pytest.mark.skipif(not (SHARED / "zh").exists(), reason="the Flickr8k captions are not beside the checkout")
def test_all_captions_of_flickr8k_in_chinese_are_read():
    path = SHARED / "zh" / "flickr8kcn.zh_human.txt.gz"
    pairs, problems = read_listing(str(path), path.read_bytes(), CaptionSettings())
    assert len(pairs) == 40455 and not problems and len({name for name, _, _ in pairs}) == 8091
    assert pairs[0] == ("667626_18933d713e.jpg", "一个穿着泳装的女人躺在海水里。", 1)


def test_a_folder_with_a_listing_in_each_split(tmp_path):
    for word, count in (("train", 5), ("val", 3)):
        make_pictures(tmp_path / word, NAMED[:count])
        lines = (json.dumps({"file_name": name, "caption": f"{word} {name}"}) for name in NAMED[:count])
        (tmp_path / word / "metadata.jsonl").write_text("\n".join(lines))
    data = open_captions(str(tmp_path), CaptionSettings())
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 5, "validation": 3}
    assert data.splits["validation"].text(1) == "val 1.jpg"


def test_pictures_elsewhere_than_their_captions(tmp_path):
    make_pictures(tmp_path / "photos", NAMED)
    (tmp_path / "captions.txt").write_text(LISTINGS["captions.txt"])
    settings = CaptionSettings(root=str(tmp_path / "photos"))
    assert len(open_captions(str(tmp_path / "captions.txt"), settings).splits["train"]) >= 5


# Named sets


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", WORDINGS)
def test_held_out_wordings_are_new_sentences_of_known_words(name, language):
    words = WORDINGS[name][language]
    assert len(set(words.classes)) == 10 and not set(words.training) & set(words.held_out)

    def parts(templates) -> set[str]:
        return {part for template in templates for part in (template.split() if language == "en" else template)}

    assert parts(words.held_out) <= parts(words.training)
    asked = prompts(name, language)
    assert len(asked) == 10 * len(words.held_out) and {label for _, label in asked} == set(range(10))
    assert not {text for text, _ in asked} & {text for text, _ in prompts(name, language, held_out=False)}


def test_digits_have_captions():
    data = open_captions("digits", CaptionSettings(language="zh"))
    train, test = data.splits["train"], data.splits["test"]
    seven = int(np.flatnonzero(train.classes == 7)[0])
    assert "手写数字七" in train.texts(seven) and len(train) == 1257 and not train.labels.any()
    asked = dict(prompts("digits", "zh"))
    assert all(asked[text] == test.classes[index] for index in range(len(test)) for text in test.texts(index))
    own = open_captions("digits", CaptionSettings(templates=("my {}",)))
    assert own.splits["train"].texts(seven) == ("my seven",) and own.fingerprint != data.fingerprint
    assert default_preprocess(data.pictures(), 8, 1).channels == 1


@pytest.mark.skipif(not (SHARED / "fashion-mnist").exists(), reason="Fashion-MNIST is not beside the checkout")
def test_fashion_mnist_has_captions():
    data = open_captions(f"fashion-mnist:{SHARED / 'fashion-mnist'}", CaptionSettings())
    train = data.splits["train"]
    boot = int(np.flatnonzero(train.classes == 9)[0])
    assert train.text(boot) == "an ankle boot" and len(data.splits["test"]) == 10000


# Batches


@pytest.fixture
def pairs(tmp_path) -> TsvSplit:
    (tmp_path / "x.train.tsv").write_text(rows(20))
    (tmp_path / "x.val.tsv").write_text(rows(7, first=20))
    return open_captions(f"{tmp_path}/x.*.tsv", CaptionSettings()).splits["train"]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_hold_pictures_with_their_own_texts(pairs, workers):
    pairs.small = workers == 0  # kept decoded, or read by a process
    augment = AugmentSettings(flip=True)
    loader = PairLoader(pairs, PREPROCESS, augment, batch_size=6, seed=3, workers=workers)
    pictures = Loader(pairs, PREPROCESS, augment, batch_size=6, seed=3, workers=0)
    assert len(loader) == 3
    for epoch in range(2):
        for batch, alone in zip(loader.batches(epoch), pictures.batches(epoch), strict=True):
            assert torch.equal(batch.images, alone.images) and len(batch) == 6
            assert batch.texts == [pairs.text(int(index)) for index in batch.indices]
    later = list(loader.batches(1, start=2))
    assert len(later) == 1 and later[0].texts == batch.texts and torch.equal(later[0].images, batch.images)


def test_evaluation_takes_every_record_once_in_order(pairs):
    parts = [
        [text for batch in PairLoader(
            pairs, PREPROCESS, None, batch_size=6, seed=0, workers=0, rank=rank, world=2
        ).batches(0) for text in batch.texts]
        for rank in range(2)
    ]  # fmt: skip
    assert parts[0] + parts[1] == [pairs.text(index) for index in range(20)]


def test_one_of_several_captions_by_chance():
    split = open_captions("digits", CaptionSettings()).splits["train"]
    preprocess = Preprocess((8, 8), 1, (0.5,), (0.5,), resize="stretch")

    def said(epoch: int, rank: int = 0, world: int = 1, augment: AugmentSettings | None = AugmentSettings()) -> dict:  # noqa: B008
        loader = PairLoader(split, preprocess, augment, batch_size=100, seed=1, workers=0, rank=rank, world=world)
        return {
            int(i): text for batch in loader.batches(epoch) for i, text in zip(batch.indices, batch.texts, strict=True)
        }

    first = said(0)
    assert all(text in split.texts(index) for index, text in first.items())
    assert {split.texts(index).index(text) for index, text in first.items()} == set(range(6))
    assert first == said(0, 0, 2) | said(0, 1, 2)
    second = said(1)
    assert any(first[index] != second[index] for index in first.keys() & second.keys())
    assert said(0, augment=None) == said(5, augment=None)


# Prompts


def test_prompts_from_a_file(tmp_path):
    content = 'idx\ttext\n1\t一只狗\n\n2\t"a\ttab"\n'
    (tmp_path / "p.tsv").write_text(content)
    (tmp_path / "p.tsv.gz").write_bytes(gzip.compress(content.encode("utf-8-sig")))
    for name in ("p.tsv", "p.tsv.gz"):
        assert read_prompts(tmp_path / name, CaptionSettings()) == ([("1", "一只狗"), ("2", "a\ttab")], ())


def test_a_written_picture_is_what_easynlp_reads():
    text = picture_to_base64(picture(1))
    read = Image.open(io.BytesIO(base64.urlsafe_b64decode(text)))
    assert read.format == "PNG" and np.array_equal(np.asarray(read), np.asarray(picture(1)))
