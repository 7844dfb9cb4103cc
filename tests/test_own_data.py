"""Data of one's own, as people have it: folders with strangers in them, links, names of every kind."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import orchard
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from orchard.app.evaluate import evaluate
from orchard.app.train import left_out
from orchard.data import DataSettings, open_data
from orchard.data.captions import open_captions, write_row
from orchard.data.contracts import ImageData
from orchard.data.pairs import open_pairs
from orchard.data.settings import CaptionSource, ImageSource, TextPairSource
from orchard.data.splits import hold_out_by_content
from orchard.data.text import open_text
from orchard.data.unlabelled import open_pictures
from orchard.data.walk import IMAGES, walk
from orchard.errors import OrchardError
from orchard.models import create_model, landmark_of
from orchard.weights.official import preprocess_of
from orchard.weights.portable import Portable, architecture_of, save_portable

WHOLE = DataSettings(test_fraction=0)


def draw(place: Path, seed: int = 0, count: int = 3) -> None:
    """Small pictures in a folder, each of its own."""
    place.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng([seed, number, *os.fsencode(place.name)]).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")


def draw_splits(root: Path, *splits: str) -> None:
    for seed, split in enumerate(splits):
        for label in ("cat", "dog"):
            draw(root / split / label, seed)


def sizes(data: ImageData) -> dict[str, int]:
    return {name: len(split) for name, split in data.splits.items()}


@pytest.mark.parametrize("stranger", ["unlabelled", "eval/cat", "extra/deep/folder"])
def test_what_stands_beside_splits_is_no_class(tmp_path: Path, stranger: str) -> None:
    draw_splits(tmp_path, "train", "val")
    draw(tmp_path / stranger, 9)
    data = open_data(str(tmp_path), WHOLE)
    assert data.classes == ("cat", "dog") and sizes(data) == {"train": 6, "validation": 6}
    top = stranger.split("/")[0]
    assert [(p.key, p.what) for p in data.problems] == [
        (top, "3 pictures in a folder beside the splits train, val; left out")
    ]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for label in ("train", "car"):
        draw(tmp_path / label)
    assert open_data(str(tmp_path), WHOLE).classes == ("car", "train")


def test_links_are_followed_and_only_ancestors_are_loops(tmp_path: Path) -> None:
    draw_splits(tmp_path / "set", "train", "test")
    (tmp_path / "set" / "val").symlink_to("test")
    (tmp_path / "set" / "train" / "emu").symlink_to(tmp_path / "birds")
    (tmp_path / "set" / "test" / "emu").symlink_to(tmp_path / "birds")
    (tmp_path / "set" / "train" / "cat" / "up").symlink_to(tmp_path / "set")
    draw(tmp_path / "birds")
    data = open_data(str(tmp_path / "set"), DataSettings())
    assert sizes(data) == {"train": 9, "validation": 9, "test": 9} and data.classes == ("cat", "dog", "emu")


def test_what_others_leave_in_folders_is_left_out_everywhere(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        draw(tmp_path / label)
        draw(tmp_path / "__MACOSX" / label)
        draw(tmp_path / label / ".ipynb_checkpoints")
        (tmp_path / label / "Thumbs.db").write_bytes(b"x")
        (tmp_path / label / "._0.png").write_bytes(b"x")
    (tmp_path / "cat" / "phone.heic").write_bytes(b"x")
    (tmp_path / "cat" / "nameless").write_bytes(b"x")
    said = {"*.heic": "1 files are no pictures by their names; left out",
            "names without an ending": "1 files are no pictures by their names; left out"}  # fmt: skip
    for data in (open_data(str(tmp_path), WHOLE), open_pictures(str(tmp_path), ImageSource(source=""))):
        assert sum(sizes(data).values()) == 6 and {p.key: p.what for p in data.problems} == said


def test_what_is_left_out_is_said_before_training() -> None:
    found = [f"*.a{number}: 1 files are no pictures by their names; left out" for number in range(7)]
    assert left_out({"problems": found[:2]}) == found[:2]
    assert left_out({"problems": found}) == [*found[:5], "and 2 more like these (orchard data check lists all)"]
    assert left_out({}) == []


def test_names_that_are_no_utf_8_are_answered(tmp_path: Path) -> None:
    draw_splits(tmp_path, "train", "test")
    strange = os.fsdecode(b"caf\xe9.png")
    (tmp_path / "train" / "cat" / "0.png").rename(tmp_path / "train" / "cat" / strange)
    (tmp_path / "test" / os.fsdecode(b"dog\xe9")).mkdir()
    data = open_data(str(tmp_path), DataSettings(bad_records="skip"))
    assert len(data.fingerprint) == 64 and sum(sizes(data).values()) == 12


def test_accents_are_spelled_in_two_ways(tmp_path: Path) -> None:
    one, two = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    draw_splits(tmp_path, "train", "test")
    draw(tmp_path / "train" / one)
    draw(tmp_path / "test" / two, 1)
    data = open_data(str(tmp_path), DataSettings())
    assert data.classes == ("café", "cat", "dog") and sizes(data)["test"] == 9
    table = tmp_path / "table.csv"
    table.write_text("".join(["path,label\n", *(f"train/{two}/{n}.png,a\ntrain/cat/{n}.png,b\n" for n in range(3))]))
    assert sum(sizes(open_data(str(table), WHOLE)).values()) == 6


def test_a_pipe_is_no_picture(tmp_path: Path) -> None:
    draw_splits(tmp_path, "train")
    os.mkfifo(tmp_path / "train" / "cat" / "9.png")
    with pytest.raises(OrchardError, match=r"9\.png: it is no regular file"):
        open_data(str(tmp_path), DataSettings())
    assert walk(tmp_path, IMAGES).files[3] == "train/cat/9.png"  # and not lost in silence


@pytest.mark.parametrize(
    ("how", "classes"),
    [("top", ("bird", "cat")), ("leaf", ("cat", "emu", "owl")), ("path", ("bird/emu", "bird/owl", "cat"))],
)
def test_classes_in_nested_folders(tmp_path: Path, how: str, classes: tuple[str, ...]) -> None:
    for place in ("bird/emu", "bird/owl", "cat"):
        draw(tmp_path / place)
    settings = ImageSource.model_validate({"source": "", "classes": how, "test_fraction": 0})
    data = open_data(str(tmp_path), settings)
    assert data.classes == classes
    assert bool(data.problems) == (how == "top")


def test_columns_by_name(tmp_path: Path) -> None:
    draw_splits(tmp_path, "train")
    rows = [
        f"{n},train/{kind}/{n}.png,{kind},{'test' if n == 2 else 'train'}" for n in range(3) for kind in ("cat", "dog")
    ]
    (tmp_path / "t.csv").write_text("\n".join(["id,Bild,Art,Teil", *rows]) + "\n")
    with pytest.raises(
        OrchardError, match=r"no column named path or file .* say which with --set data.columns.path=NAME"
    ):
        open_data(str(tmp_path / "t.csv"), DataSettings())
    columns = {"path": "Bild", "label": "Art", "split": "Teil"}
    settings = ImageSource.model_validate({"source": "", "columns": columns})
    data = open_data(str(tmp_path / "t.csv"), settings)
    assert data.classes == ("cat", "dog") and sizes(data) == {"train": 3, "validation": 1, "test": 2}
    columns["split"] = "Stück"
    with pytest.raises(OrchardError, match="no column named stück in the header"):
        open_data(
            str(tmp_path / "t.csv"),
            settings.model_copy(update={"columns": settings.columns.model_copy(update=columns)}),
        )


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three animals that has learned nothing."""
    torch.manual_seed(0)
    model: Any = create_model("lenet5", num_classes=3, in_channels=3)
    preprocess = preprocess_of(landmark_of("lenet5"), model.config, "")
    folder = tmp_path_factory.mktemp("judge")
    save_portable(
        folder, model,
        Portable("lenet5", architecture_of(model), "image-classification", ("cat", "dog", "emu"), preprocess),
    )  # fmt: skip
    return folder


def test_evaluate_uses_all_that_it_is_given_and_says_how_many(tmp_path: Path, judge: Path) -> None:
    for label in ("cat", "dog"):
        draw(tmp_path / "two" / label, count=10)
    draw(tmp_path / "one" / "emu", count=5)
    draw_splits(tmp_path / "tested", "test")
    draw_splits(tmp_path / "learned", "train", "test")
    asked = {"two": 20, "one": 5, "tested": 6, "learned": 6}
    for name, count in asked.items():
        answer = evaluate(judge, str(tmp_path / name))
        assert answer["count"] == count and 0 <= answer["test"]["accuracy"] <= 1 and answer["test"]["loss"] > 0
    assert evaluate(judge, str(tmp_path / "tested"), "test")["count"] == 6
    assert 1 <= evaluate(judge, str(tmp_path / "two"), "test")["count"] <= 6  # what a training would hold out
    assert evaluate(judge, str(tmp_path / "learned"), "validation")["count"] == 1
    draw(tmp_path / "one" / "gnu", count=5)
    with pytest.raises(OrchardError, match="does not know the class 'gnu'"):
        evaluate(judge, str(tmp_path / "one"))


def test_all_kinds_of_data_are_used_whole(tmp_path: Path) -> None:
    whole = CaptionSource(source="").for_evaluation(whole=True)
    draw(tmp_path / "bare", count=7)
    assert sizes(open_pictures(str(tmp_path / "bare"), whole)) == {"test": 7}
    (tmp_path / "bare" / "captions.csv").write_text("file,text\n" + "".join(f"{n}.png,a {n}\n" for n in range(7)))
    assert {name: len(split) for name, split in open_captions(str(tmp_path / "bare"), whole).splits.items()} == {
        "test": 7
    }
    with Image.open(tmp_path / "bare" / "0.png") as picture:
        rows = "".join(write_row(str(number), "red", picture) for number in range(9))
    (tmp_path / "a.tsv").write_text(rows)
    assert len(open_captions(str(tmp_path / "a.tsv"), whole).splits["test"]) == 9
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "test.txt").write_text("one and two\n" * 9)
    assert list(open_text(str(tmp_path / "text"), whole).splits) == ["test"]
    assert open_text(str(tmp_path / "text" / "test.txt"), whole).splits["test"] == ("one and two\n" * 9,)
    (tmp_path / "p.tsv").write_text("eins\tfirst\nzwei\tsecond\n")
    pairs = TextPairSource(source="").for_evaluation(whole=True)
    assert len(open_pairs(str(tmp_path / "p.tsv"), pairs).splits["test"]) == 2


@given(
    labels=st.lists(st.integers(0, 3), min_size=12, max_size=60), new=st.integers(1, 40), seed=st.integers(0, 9),
    fractions=st.sampled_from([(0.1, 0.1), (0.2, 0.0), (0.3, 0.3)]),
)  # fmt: skip
def test_old_records_stay_where_they_were(
    labels: list[int], new: int, seed: int, fractions: tuple[float, float]
) -> None:
    digests = np.random.default_rng(seed).integers(-(2**63), 2**63, len(labels) + new)
    every = np.array([*labels, *[0] * new])
    few = every[: len(labels)]
    if min(np.bincount(few)[np.unique(few)]) < 2:
        return
    before = hold_out_by_content(digests[: len(few)], few, fractions, seed)
    after = hold_out_by_content(digests, every, fractions, seed)
    for number, fraction in enumerate(fractions):
        old = set(after[number].tolist()) & set(range(len(few)))
        moved = old ^ set(before[number].tolist())
        assert len(moved) <= 2 + len(np.unique(few))  # those that fill what would be empty, and no others
        assert bool(len(before[number])) == bool(fraction)
    kept = np.delete(few, np.concatenate(before))
    assert set(kept.tolist()) == set(few.tolist())


def test_a_file_more_moves_no_other_and_copies_stay_together(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        draw(tmp_path / label, count=60)
    (tmp_path / "cat" / "copy.png").write_bytes((tmp_path / "cat" / "7.png").read_bytes())

    def places() -> dict[str, str]:
        splits = open_data(str(tmp_path), DataSettings(test_fraction=0.3)).splits
        return {name: split for split, part in splits.items() for name in part.names}  # type: ignore[attr-defined]

    before = places()
    assert before["cat/copy.png"] == before["cat/7.png"] and set(before.values()) == {"train", "validation", "test"}
    draw(tmp_path / "dog", 5, count=1)  # in the place of another
    draw(tmp_path / "cow", count=9)
    (tmp_path / "cat" / "1.png").rename(tmp_path / "cat" / "renamed.png")
    after = places()
    assert after["cat/renamed.png"] == before["cat/1.png"]
    assert {name: after[name] for name in before if name not in ("dog/0.png", "cat/1.png")} == {
        name: split for name, split in before.items() if name not in ("dog/0.png", "cat/1.png")
    }


def test_measures_are_no_classes(tmp_path: Path) -> None:
    draw(tmp_path / "all", count=48)

    def table(label: Callable[[int], object], split: str = "") -> str:
        rows = "".join(f"all/{n}.png,{label(n)}{split and ',train'}\n" for n in range(48))
        (tmp_path / "t.csv").write_text(f"path,label{split}\n{rows}")
        return str(tmp_path / "t.csv")

    for split in ("", ",split"):
        with pytest.raises(OrchardError, match=r"48 of 48 classes of .* numbers, so that this is a regression"):
            open_data(table(lambda n: 1.5 * n, split), DataSettings())
        with pytest.raises(OrchardError, match="as good as a name for each record"):
            open_data(table(lambda n: f"picture {n}", split), DataSettings())
    said = open_data(table(lambda n: n % 12 / 10), DataSettings()).problems
    assert len(said) == 1 and "here 12 classes are told apart, near ones or far" in said[0].what
    assert not open_data(table(lambda n: n % 12), DataSettings()).problems


def test_captions_of_names_with_accents_and_what_is_left_out(tmp_path: Path) -> None:
    draw(tmp_path, count=4)
    one, two = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    (tmp_path / "0.png").rename(tmp_path / two)
    (tmp_path / "phone.heic").write_bytes(b"x")
    rows = [one, "1.png", "2.png", "3.png"]
    (tmp_path / "captions.csv").write_text("file,text\n" + "".join(f"{name},a {name}\n" for name in rows))
    data = open_captions(str(tmp_path), CaptionSource(source=""))
    assert sum(map(len, data.splits.values())) == 4 and [p.key for p in data.problems] == ["*.heic"]


def test_a_pipe_is_answered_and_not_waited_for(tmp_path: Path, judge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "all", count=2)
    os.mkfifo(tmp_path / "all" / "p.png")
    (tmp_path / "all" / "lost.png").symlink_to("nowhere.png")
    assert orchard("predict", judge, tmp_path / "all", "--json") in (0, 1)
    said = capsys.readouterr().out
    assert "it is no regular file" in said and "there is no such file" in said and said.count("cat") >= 2
    os.mkfifo(tmp_path / "a.tsv")
    with pytest.raises(OrchardError, match="it is no regular file"):
        open_captions(str(tmp_path / "a.tsv"), CaptionSource(source=""))


def test_what_stands_beside_splits_is_not_learned_from_without_classes_either(tmp_path: Path) -> None:
    draw_splits(tmp_path, "train", "val")
    draw(tmp_path / "extra", 9)
    data = open_pictures(str(tmp_path), CaptionSource(source=""))
    assert sizes(data) == {"train": 6, "validation": 6}
    assert [(p.key, p.what) for p in data.problems] == [("extra", "3 pictures beside the splits; left out")]
    (tmp_path / "val").rename(tmp_path / "more")
    data = open_pictures(str(tmp_path), CaptionSource(source=""))  # one folder that is called train, among others
    assert sum(sizes(data).values()) == 15 and not data.problems
