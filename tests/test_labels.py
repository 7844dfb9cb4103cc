"""Several classes and numbers of an image: how they are found in tables, folders and objects, and every bad record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import orchard
from PIL import Image

import orchard as package
from orchard.data import open_data
from orchard.data.augment import mix
from orchard.data.batches import ImageBatch
from orchard.data.check import check, draw_mosaic
from orchard.data.contracts import ImageData
from orchard.data.picture_objects import take_images
from orchard.data.preprocess import default_preprocess
from orchard.data.settings import AugmentSettings, CaptionSource, ImageSource, MixSettings
from orchard.data.targets import SeveralClasses
from orchard.data.unlabelled import open_pictures
from orchard.errors import OrchardError, UsageError

COUNT = 60


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for number in range(COUNT):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    return root


Table = Callable[..., str]


@pytest.fixture
def table(pictures: Path, tmp_path: Path) -> Table:
    """Writes a table about the pictures: a header, what stands in the row of a number, and other rows for some."""

    def write(header: str, row: Callable[[int], str], **other: str) -> str:
        lines = [f"{pictures}/{n}.png,{other.get(f'row{n}', row(n))}" for n in range(COUNT)]
        path = tmp_path / "labels.csv"
        path.write_text("\n".join([f"path,{header}", *lines]) + "\n")
        return str(path)

    return write


def opened(source: Any, **settings: Any) -> ImageData:
    columns = {"columns": {"label": settings.pop("label")}} if "label" in settings else {}
    return open_data(source, ImageSource(source="x", **columns, **settings))


def labels_by_key(data: ImageData) -> dict[int, list[float]]:
    return {
        int(Path(split.key(n)).stem): split.labels[n].tolist()
        for split in data.splits.values() for n in range(len(split))
    }  # fmt: skip


def flags(n: int) -> str:
    return f"{n % 2},{n % 3 == 0:d},{n % 5 == 0:d}"


def test_columns_of_0_and_1_are_classes(table: Table) -> None:
    data = opened(table("Odd,Third,fifth", flags))
    assert (data.target, data.classes) == ("classes", ("Odd", "Third", "fifth"))
    assert data.reason.endswith("a header that names the path, with 3 columns of 0 and 1, one for each class")
    found = labels_by_key(data)
    assert len(found) == COUNT and found[15] == [1, 1, 1] and found[2] == [0, 0, 0]  # none is said, and allowed
    assert all(split.labels.dtype == np.float32 for split in data.splits.values())
    assert opened(table("odd,third,fifth", flags)).fingerprint != data.fingerprint
    two = opened(table("a,b,other", lambda n: f"{n % 2},{n % 3 == 0:d},{n}"), label="a,b")
    assert two.classes == ("a", "b") and labels_by_key(two)[3] == [1, 1]
    with pytest.raises(OrchardError, match=r"no column named label or .* path, a, b, other; say .* or several as NAME"):
        opened(table("a,b,other", lambda n: f"{n % 2},{n % 3 == 0:d},{n}"))
    with pytest.raises(OrchardError, match="no column named label"):
        opened(table("a,b", lambda n: f"{n % 2},{n % 3 == 0:d}"), target="class")


def words(n: int) -> str:
    return "|".join(name for name, every in (("even", 2), ("third", 3), ("all", 1)) if n % every == 0)


def test_lists_in_a_field(table: Table) -> None:
    data = opened(table("label", words), label_separator="|")
    assert (data.target, data.classes) == ("classes", ("all", "even", "third"))
    assert labels_by_key(data)[4] == [1, 1, 0] and "'|' between classes" in data.reason
    assert [p.what for p in data.problems] == ["every training record has the label 'all', which tells none apart"]
    guessed = opened(table("label", words), target="classes")
    assert guessed.fingerprint == data.fingerprint
    assert opened(table("label", words)).target == "class"  # nothing was said
    assert SeveralClasses(separator=";").read(" e\u0301a ; \xe9a;") == frozenset({"\xe9a"})  # one name, spelled twice
    with pytest.raises(OrchardError, match=r"labels are lists; --set data.label_separator=';' learns several"):
        opened(table("label", lambda n: f"a;b{n}"))


@pytest.mark.parametrize(
    ("header", "row", "bad", "settings", "said"),
    [
        ("label", words, "", {"label_separator": "|"}, "its list of labels is empty; columns of 0 and 1"),
        ("label", words, "|", {"target": "classes"}, "its list of labels is empty"),
        ("a,b", lambda n: f"{n % 2},0", "2,0", {"label": "a,b"}, "'2' in the column a; expected 0 or 1"),
        ("a,b", lambda n: f"{n % 2},0", ",0", {"label": "a,b"}, "'' in the column a; expected 0 or 1"),
        ("age", str, "old", {"label": "age", "target": "number"}, "its age is 'old'; expected a number"),
        ("age", str, "", {"label": "age", "target": "number"}, "its age is ''; expected a number"),
        ("age", str, "nan", {"label": "age", "target": "number"}, "its age is 'nan'; expected a number"),
        ("age", str, "1e40", {"label": "age", "target": "number"}, "its age is '1e40'; expected a number"),
        ("x,y", lambda n: f"{n},1.{n}", "1,-inf", {"label": "x,y", "target": "number"}, "its y is '-inf'; expected a"),
    ],
)
def test_bad_labels_are_refused_or_skipped(
    table: Table, header: str, row: Callable[[int], str], bad: str, settings: dict[str, Any], said: str
) -> None:
    source = table(header, row, row7=bad)
    with pytest.raises(OrchardError) as error:
        opened(source, **settings)
    assert "1 of 60 pictures have a label that is not right" in str(error.value)
    assert f"7.png: {said}" in str(error.value) and str(error.value).count("\n") == 1
    data = opened(source, **settings, bad_records="skip")
    assert 7 not in labels_by_key(data) and len(labels_by_key(data)) == COUNT - 1
    assert any(problem.key.endswith("/7.png") and said in problem.what for problem in data.problems)


def test_labels_that_training_never_sees(table: Table) -> None:
    def row(n: int) -> str:
        return f"{words(n)},{'val' if n % 4 == 0 else 'train'}"

    source = table("label,split", row, row8="even|fourth,val")
    with pytest.raises(OrchardError, match=r"1 of 60 .* never sees: .*8.png: label 'fourth' is on no training record"):
        opened(source, label_separator="|")
    assert 8 not in labels_by_key(opened(source, label_separator="|", bad_records="skip"))
    asked = open_data(source, ImageSource(source="x", label_separator="|").for_evaluation(whole=False))
    assert "fourth" in asked.classes


@pytest.mark.parametrize(
    ("header", "row", "settings", "said"),
    [
        (
            "a,b",
            lambda n: f"{n % 2},0",
            {"label": "a,b", "target": "class"},
            "the labels are in 2 columns; data.target",
        ),
        ("label", words, {"label_separator": "|", "target": "number"}, "is for several classes of a record, not for"),
    ],
)
def test_settings_that_contradict(
    table: Table, header: str, row: Callable[[int], str], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        opened(table(header, row), **settings)


def test_what_cannot_be_learned(table: Table) -> None:
    with pytest.raises(OrchardError, match="same labels on every training record; nothing can be learned"):
        opened(table("a,b", lambda n: "1,0"))
    with pytest.raises(OrchardError, match="every training record has 3 as age; expected numbers that differ"):
        opened(table("age", lambda n: "3.0"), label="age", target="number")
    data = opened(table("a,b", lambda n: f"{n % 2},0"))
    assert data.problems[0].what == "no training record has the label 'b', which will hardly be answered"
    for settings in ({"columns": {"label": "a,a"}}, {"columns": {"label": ["a", ""]}}, {"label_separator": ""}):
        with pytest.raises(ValueError, match=r"each once|at least 1"):
            ImageSource(source="x", **settings)  # type: ignore[arg-type]


def test_numbers_are_learned_where_it_is_said(table: Table, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(OrchardError, match=r"so that this is a regression, which --set data.target=number learns"):
        opened(table("label", lambda n: f"{n}.5"))
    data = opened(table("label", lambda n: f"{n}.5"), target="number")
    assert (data.target, data.classes, data.characters) == ("number", ("label",), ())
    assert labels_by_key(data)[7] == [7.5] and data.splits["train"].labels.dtype == np.float32
    both = opened(table("Age,w", lambda n: f"{n},{-n / 4}"), target="number", label=["w", "age"])
    assert both.classes == ("w", "Age") and labels_by_key(both)[8] == [-2, 8]
    for n in range(COUNT):  # folders called by numbers
        (tmp_path / "ages" / str(n % 12)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "ages" / str(n % 12) / f"{n}.png").write_bytes((pictures / f"{n}.png").read_bytes())
    ages = opened(str(tmp_path / "ages"), target="number")
    assert ages.classes == ("number",) and labels_by_key(ages)[27] == [3]


def test_no_class_is_held_out_altogether() -> None:
    encoded = np.zeros((200, 3), np.float32)
    encoded[:, 0], encoded[::2, 1], encoded[3, 2] = 1, 1, 1
    strata = SeveralClasses().strata(encoded)
    assert strata[3] == 3 and strata[4] == 2 and strata[5] == 1
    assert not SeveralClasses().strata(encoded * 0).any()


def scans(label: Callable[[int], Any], count: int = 40) -> list[tuple[np.ndarray, Any]]:
    return [(np.random.default_rng(n).integers(0, 256, (8, 8), np.uint8), label(n)) for n in range(count)]


class Feature:
    def __init__(self, names: Sequence[str]):
        self.feature = type("ClassLabel", (), {"names": list(names)})()


class HuggingFace(list[Any]):
    """Items as a data set with a column of lists of class labels has them."""

    features = {"image": object(), "label": Feature(["x", "y", "z"])}  # noqa: RUF012

    def __getitem__(self, index: Any) -> Any:
        image, label = super().__getitem__(index)
        return {"image": Image.fromarray(image), "label": label}


@pytest.mark.parametrize(
    ("data", "target", "classes", "of_five"),
    [
        (scans(lambda n: ["odd"] * (n % 2) + ["a", "b"][: n % 3]), "classes", ("a", "b", "odd"), [1, 1, 1]),
        (scans(lambda n: [n % 2, 2 + n % 3]), "classes", ("0", "1", "2", "3", "4"), [0, 1, 0, 0, 1]),
        (scans(lambda n: torch.tensor([n % 2, n % 3 == 0, 0])), "classes", ("0", "1"), [1, 0]),
        (scans(lambda n: np.array([n % 2, n % 3 == 0, 1.0])), "classes", ("0", "1", "2"), [1, 0, 1]),
        (HuggingFace(scans(lambda n: [0, 2][: n % 3])), "classes", ("x", "y", "z"), [1, 0, 1]),
        (scans(lambda n: n / 4), "number", ("number",), [1.25]),
        (scans(lambda n: torch.tensor(n / 4)), "number", ("number",), [1.25]),
        (scans(lambda n: [n / 4, float(-n)]), "number", ("number_1", "number_2"), [1.25, -5]),
        (scans(lambda n: torch.tensor([n / 4, -n])), "number", ("number_1", "number_2"), [1.25, -5]),
        (scans(lambda n: n if n % 2 else n / 4), "number", ("number",), [5]),
    ],
)
def test_objects(data: Any, target: str, classes: tuple[str, ...], of_five: list[float]) -> None:
    found = package.open_data(data)
    assert (found.target, found.classes) == (target, classes)
    assert labels_of_five(found) == of_five


def labels_of_five(data: ImageData) -> list[float]:
    for split in data.splits.values():
        for n in range(len(split)):
            if split.key(n).endswith("/5"):
                return split.labels[n].tolist()  # type: ignore[no-any-return]
    raise AssertionError("no record 5")


def test_objects_that_are_not_right() -> None:
    bad = [*scans(lambda n: n / 4), (np.zeros((8, 8), np.uint8), float("nan"))]
    with pytest.raises(OrchardError, match=r"list\[40\]: its number is nan; expected a number"):
        package.open_data(bad)
    assert len(labels_of_five(opened(bad, bad_records="skip"))) == 1
    with pytest.raises(OrchardError, match=r"list\[1\]: it has 1 numbers, others have 2"):
        package.open_data(scans(lambda n: [0.5, n / 2] if n != 1 else 0.5))
    with pytest.raises(OrchardError, match=r"list\[3\]: its label is a NoneType None; expected a class"):
        package.open_data(scans(lambda n: [None] if n == 3 else ["a"]))
    with pytest.raises(OrchardError, match=r"list\[0\]: its label is \['a', 'b'\]; expected one class"):
        opened(scans(lambda n: ["a", "b"]), target="class")
    whole = opened(scans(lambda n: n % 9), target="number")
    assert whole.target == "number" and labels_of_five(whole) == [5]
    with pytest.raises(OrchardError, match="has classes for each image; expected one class"):
        open_pictures(take_images(scans(lambda n: ["a"] * (n % 2))), CaptionSource(source="x"))


def test_sets_of_before_have_their_fingerprints() -> None:
    items = [(np.full((8, 8), n, np.uint8), "cat" if n % 3 else "dog") for n in range(60)]
    data = package.open_data(items)
    assert data.fingerprint == "5bedfa15ba3e8bb24f13b9339459ef12b22556d99dfc34e82c34e4fe9bc9f2c5"
    assert data.source == "object:list@70ebb5b1"
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 52, "validation": 5, "test": 3}


def test_data_check(table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = table("odd,third,fifth", flags)
    data, found = check(source, ImageSource(source=source))
    assert found.target == "classes" and sum(c["odd"] for c in found.counts.values()) == COUNT / 2
    draw_mosaic(data, default_preprocess(data, (8, 8), 1), AugmentSettings(), tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").width > 8
    source = table("age", str)
    settings = ("--set", "data.target=number", "--set", "data.columns.label=age")
    assert orchard("data", "check", source, *settings, "--mosaic", tmp_path / "n.png") == 0
    assert "train age: " in capsys.readouterr().out
    assert orchard("data", "check", source, *settings, "--json") == 0
    assert '"imbalance": null' in capsys.readouterr().out


def test_labels_are_mixed_as_they_are() -> None:
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    batch = ImageBatch(torch.arange(8.0).reshape(2, 1, 2, 2), labels, torch.arange(2))
    mixed = mix(batch, MixSettings(mixup=1.0), 3, 0, 1)
    share = float(mixed.labels[0, 0])
    assert 0 < share < 1 and torch.allclose(mixed.labels, torch.tensor([[share, 0, 1], [1 - share, 0, 1]]))
