"""What Python people hold in their hands: data sets, frames, modules, images in memory, callbacks and metrics."""

from __future__ import annotations

import ast
import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from log_lines import log_lines
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import orchard
from orchard.app.api_page import page
from orchard.data.contracts import ImageData
from orchard.data.digests import digests_of
from orchard.data.preprocess import default_preprocess
from orchard.data.settings import TextSource
from orchard.data.text import open_text
from orchard.data.text_objects import take_texts
from orchard.errors import OrchardError, UsageError
from orchard.files import read_json

Item = tuple[Any, Any]
FEW = {"batch_size": 8, "max_steps": 2, "optimizer.lr": 1e-3, "data.workers": 0}


def scans(count: int = 40, seed: int = 0) -> list[Item]:
    """Small grey images of two classes: bright ones and dark ones."""
    chance = np.random.default_rng(seed)
    return [(chance.integers(0, 128, (8, 8)).astype(np.uint8) + 127 * (n % 2), n % 2) for n in range(count)]


class Photos(Dataset[Item]):
    """Larger RGB images of unlike sizes, made when they are asked for."""

    classes = ("dark", "bright")

    def __init__(self, count: int = 30, light: int = 120):
        self.count, self.light = count, light

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.count:
            raise IndexError(index)
        pixels = np.random.default_rng(index).integers(0, 128, (70 + index % 3, 80, 3)) + self.light * (index % 2)
        return Image.fromarray(pixels.astype(np.uint8)), index % 2


class Net(nn.Module):
    def __init__(self, classes: int = 2):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4 * 6 * 6, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(images).relu().flatten(1))  # type: ignore[no-any-return]


class Frame:
    """As a pandas frame is read."""

    def __init__(self, **columns: list[Any]):
        self.table = columns
        self.columns = list(columns)

    def __len__(self) -> int:
        return len(next(iter(self.table.values())))

    def itertuples(self, index: bool = True, name: str | None = "Pandas") -> Any:
        assert not index and name is None
        return zip(*self.table.values(), strict=True)


class ClassLabel:
    def __init__(self, names: list[str]):
        self.names = names


class HuggingFace:
    """As a `datasets.Dataset` is read."""

    def __init__(self, items: list[Item], names: list[str]):
        self.items, self.features = items, {"image": object(), "label": ClassLabel(names)}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, label = self.items[index]
        return {"image": Image.fromarray(image), "label": label}


def weights(run: dict[str, Any]) -> dict[str, Tensor]:
    return load_file(Path(run["run"]) / "model" / "model.safetensors")


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


def test_the_same_images_in_python_learn_the_same_to_the_bit(tmp_path: Path, digits: ImageData) -> None:
    items = {
        name: [(split.image(n), digits.classes[split.labels[n]]) for n in range(len(split))]
        for name, split in digits.splits.items()
    }
    named = orchard.train("lenet5", "digits", tmp_path / "named", max_steps=2)
    handed = orchard.train("lenet5", items, tmp_path / "handed", max_steps=2, recipe="digits")
    assert_same(weights(named), weights(handed))
    assert named["test"] == handed["test"]


def test_a_run_of_an_object_resumes_to_the_bit_and_knows_its_data(tmp_path: Path) -> None:
    class Killed:
        def on_step(self, moment: orchard.Moment) -> None:
            if moment.step == 2:
                raise RuntimeError("killed")

    wanted = {**FEW, "max_steps": 4, "checkpoint_steps": 1, "image_size": 32, "augmentation": {"flip": True}}
    whole = orchard.train("resnet_nano", Photos(), tmp_path / "whole", **wanted)
    with pytest.raises(RuntimeError, match="killed"):
        orchard.train("resnet_nano", Photos(), tmp_path / "cut", **wanted, callbacks=[Killed()])
    source = read_json(tmp_path / "cut" / "run.json")["data"]["source"]
    assert source.startswith("object:Photos@")
    with pytest.raises(UsageError, match=r"object:Photos@\w+ is a Python object.*hand the same Photos in again"):
        orchard.train("resnet_nano", source, tmp_path / "cut", **wanted)
    with pytest.raises(UsageError, match=r"holds a run with data\.source=object:Photos"):
        orchard.train("resnet_nano", Photos(light=100), tmp_path / "cut", **wanted)
    resumed = orchard.train("resnet_nano", Photos(), tmp_path / "cut", **wanted)
    assert_same(weights(whole), weights(resumed))
    assert log_lines(tmp_path / "whole") == log_lines(tmp_path / "cut")
    assert "orchard.train(" in (tmp_path / "cut" / "report.html").read_text()
    assert "Photos/" in (tmp_path / "cut" / "report.html").read_text()


def test_splits_follow_from_the_content() -> None:
    items = scans(60)
    before, after = orchard.open_data(items), orchard.open_data(scans(3, seed=9) + items)
    assert set(before.splits) == {"train", "validation", "test"}
    for name in ("validation", "test"):
        assert set(digests_of(before.splits[name])) <= set(digests_of(after.splits[name]))
    pair = orchard.open_data((items, scans(10, seed=1)))
    assert len(pair.splits["test"]) == 10 and len(pair.splits["train"]) + len(pair.splits["validation"]) == 60
    tensors = TensorDataset(
        torch.stack([torch.from_numpy(image)[None] for image, _ in items]), torch.tensor([label for _, label in items])
    )
    assert np.array_equal(digests_of(orchard.open_data(tensors).splits["test"]), digests_of(before.splits["test"]))


def test_large_images_are_read_when_they_are_needed() -> None:
    data = orchard.open_data(Subset(Photos(), range(20)))
    assert (data.channels, data.classes) == (3, ("dark", "bright"))
    split = data.splits["train"]
    number = int(split.key(0).rpartition("/")[2])
    assert split.key(0) == f"Photos/{number}"
    assert np.array_equal(split.image(0).permute(1, 2, 0).numpy(), np.asarray(Photos()[number][0]))


def test_small_images_in_colour_are_measured() -> None:
    level = np.array([50, 100, 200], np.uint8)
    items = [(np.full((8, 8, 3), level + n % 2, np.uint8), n % 2) for n in range(40)]
    preprocess = default_preprocess(orchard.open_data(items), 8, 3)
    assert preprocess.mean == pytest.approx((level + 0.5) / 255, abs=2e-3)


def test_a_hugging_face_dictionary_names_its_classes(tmp_path: Path) -> None:
    names = ["dark", "bright"]
    both = {"train": HuggingFace(scans(40), names), "test": HuggingFace(scans(8, seed=2), names)}
    run = orchard.train("lenet5", both, tmp_path / "run", **FEW)
    assert orchard.load(run["run"]).classes == ("dark", "bright")
    again = orchard.evaluate(run["run"], both["test"])
    assert again["count"] == 8 and again["test"] == pytest.approx(run["test"])
    with pytest.raises(OrchardError, match=r"HuggingFace\[1\]: its label is -1; expected 0 to 1"):
        orchard.open_data(HuggingFace([*scans(1), (scans(1)[0][0], -1)], names))


def test_the_real_package_of_hugging_face() -> None:
    datasets = pytest.importorskip("datasets")
    table = {"image": [Image.fromarray(image) for image, _ in scans(20)], "label": [label for _, label in scans(20)]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dark", "bright"])})
    assert orchard.open_data(datasets.Dataset.from_dict(table, features)).classes == ("dark", "bright")


def test_a_frame_is_read_as_a_table_in_a_file_is(photos: Path, tmp_path: Path) -> None:
    paths = sorted(photos.rglob("*.jpg"))
    frame = Frame(Path=[str(path) for path in paths], label=[path.parent.name for path in paths])
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([frame.columns, *zip(*frame.table.values(), strict=True)])
    handed, read = orchard.open_data(frame), orchard.open_data(tmp_path / "table.csv")
    assert (handed.format, handed.classes, handed.fingerprint) == ("frame", read.classes, read.fingerprint)
    frame.table["label"][3] = float("nan")
    with pytest.raises(OrchardError, match="Frame, row 3: the label is empty"):
        orchard.open_data(frame)
    with pytest.raises(OrchardError, match="Frame: no column named label"):
        orchard.open_data(Frame(path=["a.jpg"]))


class Shaky(Photos):
    def __getitem__(self, index: int) -> Item:
        return np.random.default_rng().integers(0, 255, (8, 8)).astype(np.uint8), index % 2


class Torn(Photos):
    def __getitem__(self, index: int) -> Item:
        if index == 3:
            raise KeyError("torn")
        return super().__getitem__(index)


GREY, RGB = np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "list is empty"),
        (([(GREY, 0)], []), "list/test is empty"),
        ([(GREY, 0), GREY], r"list\[1\] is a ndarray of 8; expected \(image, label\)"),
        ([(GREY, 0), (RGB, 1)], r"list\[1\]: its image has 3 channels, those before it have 1"),
        ([(np.zeros((8, 8, 4), np.uint8), 0)], r"list\[0\]: its image is an array \(8, 8, 4\) of uint8; expected"),
        ([(torch.zeros(1, 8, 8), 0)], r"list\[0\]: its image is a tensor \(1, 8, 8\) of float32; expected uint8"),
        ([("a.jpg", 0)], r"list\[0\]: its image is a str; expected a PIL image"),
        ([(GREY, 0), (GREY, -2)], r"list\[1\]: its label is -2; expected 0 or more"),
        ([(GREY, 0.5)], "every training record has 0.5 as number; expected numbers that differ"),
        ([(GREY, torch.zeros(3))], "the same labels on every training record; nothing can be learned"),
        ([(GREY, torch.zeros(2, 2))], r"list\[0\]: its label is a Tensor \(2, 2\); expected"),
        ([{"image": GREY, "name": "a"}], r"list\[0\]: a record has image, name; expected one label"),
        (Torn(), r"Torn\[3\] cannot be read: KeyError: 'torn'"),
        (Shaky(), r"Shaky\[0\] is another image each time it is read; leave random transforms out"),
        ([(GREY, "a"), (RGB[:, :, 0], "a")], "has one class only, 'a'"),
        (
            {"train": [(GREY, 0), (GREY + 1, 1)], "val": [(GREY, 2)]},
            r"list/validation\[0\]: class '2' is not among the",
        ),
        ({"train": scans(9), "exam": scans(9)}, "a split 'exam'; expected train, validation and test"),
        (DataLoader(Photos()), "wrapped in a loader of batches; hand in its data set"),
        (7, "a int is no data that can be learned from"),
    ],
)
def test_what_is_not_right_is_said_in_one_line(data: Any, said: str) -> None:
    with pytest.raises(OrchardError, match=said) as error:
        orchard.open_data(data)
    assert str(error.value).count("\n") == ("data.bad_records=skip" in str(error.value))


def test_data_that_a_task_does_not_take(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'boxes' is read from files"):
        orchard.train("detr_nano", scans(), tmp_path / "run")
    with pytest.raises(UsageError, match="a float is no model"):
        orchard.train(0.5, scans(), tmp_path / "run")  # type: ignore[arg-type]


def test_texts_in_a_list_and_in_a_frame(tmp_path: Path) -> None:
    lines = [f"Line {n} says that {n} comes after {n - 1}. " * 8 for n in range(40)]
    texts = open_text(take_texts(lines), TextSource(source="-"))
    assert sorted(sum(texts.splits.values(), ())) == sorted(lines)
    assert open_text(take_texts(Frame(text=lines)), TextSource(source="-")).splits == texts.splits
    with pytest.raises(OrchardError, match=r"list\[1\] is a int, no text"):
        take_texts(["a", 1])
    run = orchard.train("gpt2_nano", lines, tmp_path / "run", max_steps=1, batch_size=2, architecture={"context": 16})
    assert run["data"] == "list"
    assert orchard.evaluate(run["run"], ["A text by itself, and no other. " * 9])["test"]["perplexity"] > 1


def test_a_module_of_ones_own(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = Net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    run = orchard.train(net, scans(), tmp_path / "run", **FEW)
    assert_same(before, net.state_dict())  # a copy learned
    assert read_json(tmp_path / "run" / "settings.json")["model"]["value"].startswith("module:Net@")
    other = Net()
    loaded = orchard.load(run["run"], other)
    assert not torch.equal(other.head.weight, before["head.weight"])
    assert_same({f"model.{name}": tensor for name, tensor in other.state_dict().items()}, weights(run))
    assert loaded.model.config.num_classes == 2
    asked = orchard.evaluate(run["run"], scans(8, seed=3), model=Net())
    assert asked["count"] == 8
    (written,) = orchard.export(run["run"], "torch", tmp_path / "net.pt2", model=Net())
    assert written.difference < 1e-5
    assert orchard.pipeline(run["run"], Net())(scans(1)[0][0])[0].top
    for call in (orchard.load, orchard.pipeline, lambda folder: orchard.evaluate(folder, scans())):
        with pytest.raises(UsageError, match=r"the weights of Net, a module of your own.*hand it in from Python"):
            call(run["run"])
    with pytest.raises(OrchardError, match=r"'model\.head\.weight' has shape"):
        orchard.load(run["run"], Net(3))


def test_a_module_resumes_to_the_bit(tmp_path: Path) -> None:
    class Killed:
        def on_step(self, moment: orchard.Moment) -> None:
            if moment.step == 1:
                raise RuntimeError

    net, wanted = Net(), {**FEW, "checkpoint_steps": 1}
    whole = orchard.train(net, scans(), tmp_path / "whole", **wanted)
    with pytest.raises(RuntimeError):
        orchard.train(net, scans(), tmp_path / "cut", **wanted, callbacks=[Killed()])
    assert orchard.train(net, scans(), tmp_path / "whole", **wanted) == {**read_json(tmp_path / "whole/metrics.json"),
                                                                        "run": str(tmp_path / "whole")}  # fmt: skip
    with pytest.raises(UsageError, match="holds a run with model=module:Net"):
        orchard.train(Net(3), scans(), tmp_path / "cut", **wanted)
    resumed = orchard.train(Net(), scans(), tmp_path / "cut", **wanted)
    assert_same(weights(whole), weights(resumed))


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (lambda: Net(5), r"Net gives \(2, 5\) for two images; expected logits \(2, 2\)"),
        (lambda: nn.Sequential(nn.Conv2d(3, 2, 3)), r"Sequential fails on images \(2, 1, 8, 8\).*in_channels"),
        (lambda: nn.Flatten(), "Flatten has no parameters"),
    ],
)
def test_modules_that_do_not_fit(module: Callable[[], nn.Module], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        orchard.train(module(), scans(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(orchard.train("lenet5", scans(), tmp_path_factory.mktemp("api") / "run", **FEW)["run"])


def test_an_image_is_answered_alike_in_every_form(run: Path, tmp_path: Path) -> None:
    pixels = scans(1, seed=4)[0][0]
    Image.fromarray(pixels).save(tmp_path / "scan.png")
    ask = orchard.pipeline(run)
    packed = (tmp_path / "scan.png").read_bytes()
    forms = [
        tmp_path / "scan.png", str(tmp_path / "scan.png"), packed, Image.fromarray(pixels), pixels, pixels[:, :, None],
        torch.from_numpy(pixels), torch.from_numpy(pixels)[None],
    ]  # fmt: skip
    answers = ask(forms)
    assert len({answer.top for answer in answers}) == 1 and len(answers[0].top) == 2
    assert [answer.picture for answer in answers][1:4] == [str(tmp_path / "scan.png"), "image 2", "image 3"]
    assert ask(pixels) == ask([pixels])
    assert "not a picture" in ask(b"nonsense")[0].error
    with pytest.raises(UsageError, match=r"a tensor \(1, 8, 8\) of float32; expected uint8"):
        ask(torch.zeros(1, 8, 8))
    tensors = [ask.transform(form) for form in forms]
    assert all(torch.equal(tensor, tensors[0]) for tensor in tensors)
    assert (tensors[0].shape, tensors[0].dtype) == ((1, 32, 32), torch.float32)
    with torch.no_grad():
        likeliest = orchard.load(run).model(tensors[0][None]).softmax(1).max()
    assert float(likeliest) == pytest.approx(answers[0].top[0][1], abs=1e-6)
    with pytest.raises(OrchardError, match="there is no such file"):
        orchard.load(run).transform(tmp_path / "none.png")


def test_an_image_of_a_phone_is_turned_upright(run: Path) -> None:
    pixels = Image.fromarray(scans(1, seed=4)[0][0])
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 3
    pixels.rotate(180).save(file, "PNG", exif=exif)
    loaded = orchard.load(run)
    turned = Image.open(io.BytesIO(file.getvalue()))
    assert torch.equal(loaded.transform(turned), loaded.transform(pixels))


def test_callbacks_see_every_step_and_end_a_training(tmp_path: Path) -> None:
    class Seen(orchard.Callback):
        def __init__(self) -> None:
            self.steps: list[orchard.Moment] = []
            self.epochs: list[orchard.Moment] = []

        def on_step(self, moment: orchard.Moment) -> None:
            self.steps.append(moment)

        def on_epoch(self, moment: orchard.Moment) -> bool:
            self.epochs.append(moment)
            return len(self.epochs) < 2

    class Enough:
        def on_step(self, moment: orchard.Moment) -> None:
            if moment.step == 3:
                raise orchard.StopTraining("that is enough")

    seen, wanted = Seen(), {**FEW, "max_steps": 40, "log_every": 3}
    ended = orchard.train("lenet5", scans(), tmp_path / "epochs", **wanted, callbacks=[seen])
    per_epoch = seen.epochs[0].step
    assert ended["steps"] == 2 * per_epoch == len(seen.steps)
    assert ended["stopped"] == f"Seen ended the training after step {2 * per_epoch} of 40"
    assert seen.epochs[-1].metrics["accuracy"] == ended["validation"]["accuracy"]
    rows = list(csv.DictReader((tmp_path / "epochs" / "log.csv").open()))
    losses = [moment.metrics["loss"] for moment in seen.steps[:3]]
    assert np.mean(losses) == pytest.approx(float(rows[0]["loss"]), rel=1e-4) and len(set(losses)) == 3
    ended = orchard.train("lenet5", scans(), tmp_path / "steps", **wanted, callbacks=[Enough()])
    assert ended["steps"] == 3 and ended["stopped"].endswith("after step 3 of 40: that is enough")
    assert "accuracy" in ended["test"]
    with pytest.raises(UsageError, match=r"callbacks\[0\] is a int without a method on_step"):
        orchard.train("lenet5", scans(), callbacks=[3])


def test_ones_own_metrics_stand_beside_the_others(tmp_path: Path, run: Path) -> None:
    def margin(logits: Tensor, labels: Tensor) -> Tensor:
        assert logits.shape == (len(labels), 2) and labels.dtype == torch.int64
        return (logits[:, 1] - logits[:, 0]).abs().mean()

    found = orchard.train("lenet5", scans(), tmp_path / "run", **FEW, metrics={"margin": margin})
    assert found["test"]["margin"] > 0
    rows = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    assert float(rows[-1]["margin"]) == pytest.approx(found["validation"]["margin"], rel=1e-4)
    assert "a metric of your own" in (tmp_path / "run" / "report.html").read_text()
    asked = orchard.evaluate(run, scans(), metrics={"asked": lambda logits, labels: len(labels)})
    assert asked["test"]["asked"] == asked["count"] == 40
    for taken in ("accuracy", "count"):
        with pytest.raises(UsageError, match=f"'{taken}' is computed already"):
            orchard.evaluate(run, scans(), metrics={taken: margin})
    with pytest.raises(UsageError, match="'words' gave a str; expected a number"):
        orchard.evaluate(run, scans(), metrics={"words": lambda logits, labels: "many"})  # type: ignore[dict-item, return-value]
    with pytest.raises(UsageError, match="text-generation, which computes no metrics beside its own"):
        orchard.train("gpt2_nano", ["a text"], metrics={"margin": margin})


def test_models_are_compared_on_an_object(tmp_path: Path) -> None:
    budget = orchard.Budget("epochs", 0.4)
    wanted = {"batch_size": 8, "data.workers": 0}
    found = orchard.compare(["lenet5"], scans(), tmp_path / "compared", budget=budget, settings=wanted)
    assert found["contestants"][0]["error"] is None
    assert (found["name"], found["contestants"][0]["seeds"]) == ("list", 1)


def test_the_names_of_the_package_are_listed_and_typed() -> None:
    assert set(orchard.__all__) <= set(dir(orchard))
    tree = ast.parse(Path(orchard.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    lines = [line for line in block.body if isinstance(line, ast.ImportFrom)]
    typed = {(name.asname, line.module) for line in lines for name in line.names}
    assert typed == set(orchard._HOMES.items())


def test_the_page_of_the_api_is_made_from_the_docstrings() -> None:
    written = (Path(__file__).parents[1] / "docs" / "api.md").read_text()
    assert written == page(), "write it anew: python -m orchard.app.api_page > docs/api.md"
    assert "`callbacks`" in written
