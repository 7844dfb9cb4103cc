"""Adversarial pairs with classes: learned from folders, asked for by name, judged by a classifier that knows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from stopping import stopped_after
from torch import Tensor, nn

from orchard.app.answer import answer
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.data.contracts import Preprocess
from orchard.data.settings import PictureSource
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.tasks.unconditional_image_generation.classes import class_numbers
from orchard.tasks.unconditional_image_generation.job import evaluate_loaded
from orchard.tasks.unconditional_image_generation.judge import ACCURACY, ClassifierFeatures, Judge
from orchard.weights.portable import Portable, save_portable

TINY: dict[str, Any] = {"generator_widths": [16, 16, 16], "discriminator_widths": [16, 16, 16], "noise": 6}
SMALL: dict[str, Any] = {"image_size": 8, "max_steps": 3, "log_every": 2, "generation.samples": 30}
BIGGAN = {**SMALL, "architecture": {**TINY, "class_width": 4}, "batch_size": 16}
CLASSES = ("bird", "cat", "dog")


def write_images(folder: Path, count: int, seed: int) -> None:
    folder.mkdir(parents=True)
    for n, pixels in enumerate(np.random.default_rng(seed).integers(0, 256, (count, 8, 8), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{n}.png")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for n, name in enumerate(CLASSES):
        write_images(folder / name, 30, n)
    return folder


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of these classes, in another order, and one more."""
    torch.manual_seed(0)
    model, folder = create_model("lenet5", num_classes=4, image_size=16), tmp_path_factory.mktemp("judge")
    preprocess = Preprocess((16, 16), 1, (0.3,), (0.2,), resize="stretch").to_json()
    classes = ("dog", "fish", "bird", "cat")
    save_portable(folder, model, Portable("lenet5", vars(model.config), "image-classification", classes, preprocess))
    return folder


@pytest.fixture(scope="module")
def run(images: Path, judge: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gan") / "run"
    train("biggan_nano", str(images), path, **BIGGAN, **{"generation.judge": str(judge), "ema": 0.5})
    return path


def test_the_classes_of_the_folders_are_learned_named_and_judged(run: Path, images: Path) -> None:
    loaded = load(run)
    assert loaded.classes == CLASSES and loaded.model.config.num_classes == 3
    assert json.loads((run / "run.json").read_text())["data"]["classes"] == list(CLASSES)
    metrics = json.loads((run / "metrics.json").read_text())
    assert 0 <= metrics["test"][ACCURACY] <= 1
    found = evaluate_loaded(loaded, str(images), "test", PictureSource(source=str(images)))
    assert found[ACCURACY] == metrics["test"][ACCURACY] and found["fid"] == pytest.approx(metrics["test"]["fid"])
    assert ACCURACY in (run / "log.csv").read_text().partition("\n")[0].split(",")
    page = (run / "report.html").read_text()
    assert "Conditional accuracy" in page and "The first images of each class" in page
    seen = load_file(run / "evaluation" / "images.safetensors")
    count = len(seen["generated"])
    assert torch.equal(seen["by_class"][1], seen["generated"][1::3][: len(seen["by_class"][1])]) and count >= 9
    for n, name in enumerate(CLASSES):
        assert page.count(f"of {name}&#34;") + page.count(f'of {name}"') == len(seen["by_class"][n])


def test_classes_are_asked_for_by_name_or_number(run: Path, tmp_path: Path) -> None:
    make = pipeline(run)
    found = make(count=2, seed=3, classes="dog, 0")
    assert [(one.info["class"], one.info["number"]) for one in found] == [
        ("dog", "0"), ("dog", "1"), ("bird", "0"), ("bird", "1"),
    ]  # fmt: skip
    in_turn = make(count=6, seed=3)
    assert [one.info["class"] for one in in_turn] == [*CLASSES, *CLASSES]
    assert in_turn[5].tobytes() == make(count=6, seed=3, classes="dog")[5].tobytes()  # the same noise
    assert found[0].tobytes() != found[2].tobytes()
    truncated = make(count=2, seed=3, classes="dog", truncation=0.1)
    assert truncated[0].tobytes() != found[0].tobytes()
    (files,) = answer(run, [], {"count": 2, "classes": "cat,bird", "out": tmp_path / "out"})
    table = files.to_json()
    assert [Path(path).name for path in table["pictures"]] == ["cat-0.png", "cat-1.png", "bird-0.png", "bird-1.png"]
    assert table["classes"] == ["cat", "cat", "bird", "bird"]
    with Image.open(table["sheet"]) as sheet:
        assert sheet.size == (18, 18)
    with pytest.raises(UsageError, match=r"out holds bird-0.png of an earlier call"):
        list(answer(run, [], {"out": tmp_path / "out"}))
    with pytest.raises(UsageError, match=r"^unknown class 'cow'; known: bird, cat, dog, or by their numbers, 0 to 2$"):
        make(classes="cat,cow")


def test_names_of_classes_may_hold_anything() -> None:
    assert class_numbers("a, b", ("a, b", "a")) == [0]
    assert class_numbers("1,0", ("1", "2")) == [0]  # a name is before a number, and each class comes once
    with pytest.raises(UsageError, match="unknown class 'n12'; did you mean"):
        class_numbers("n12", [f"n{n}" for n in range(100, 200)])
    with pytest.raises(UsageError, match="option 'classes' is for models that have learned classes"):
        class_numbers("cat", ())


def test_options_that_a_model_has_no_use_for_are_refused(tmp_path: Path) -> None:
    more: dict[str, Any]
    for name, more in (("dcgan_nano", {"levels": 1}), ("ddpm_nano", {})):
        model = create_model(name, image_size=8, in_channels=1, **more)
        preprocess = Preprocess((8, 8), 1, (0.5,), (0.5,)).to_json()
        about = Portable(name, vars(model.config), "unconditional-image-generation", (), preprocess)
        save_portable(tmp_path / name, model, about)
        make = pipeline(tmp_path / name)
        with pytest.raises(UsageError, match=r"option 'truncation' is for models with styles, .* or classes"):
            make(truncation=0.5)
        with pytest.raises(UsageError, match="option 'classes' is for models that have learned classes"):
            make(classes="0")


@pytest.mark.parametrize("name", ["biggan_nano", pytest.param("sagan_nano", marks=pytest.mark.slow)])
def test_stopped_and_resumed_ends_in_the_same_bits(name: str, tmp_path: Path) -> None:
    architecture = BIGGAN["architecture"] if name == "biggan_nano" else TINY
    more = {"adversarial.discriminator_steps": 2, "optimizer.name": "adam", "batch_size": 16, "max_steps": 4}
    settings = {**SMALL, "architecture": architecture, "ema": 0.9, **more}
    whole = train(name, "digits", tmp_path / "whole", **settings)
    with stopped_after(2, 4):
        train(name, "digits", tmp_path / "parts", **settings)
    again = train(name, "digits", tmp_path / "parts", **settings)
    assert again["test"] == whole["test"] and ACCURACY not in again["test"]
    for file in ("model/model.safetensors", "evaluation/images.safetensors"):
        one, two = (load_file(tmp_path / part / file) for part in ("whole", "parts"))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), file


def test_data_without_classes_are_refused_in_one_line(images: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "flat", 30, 0)
    with pytest.raises(
        OrchardError, match=r"^biggan_nano learns images by their classes: .* in no class folder"
    ) as caught:
        train("biggan_nano", str(tmp_path / "flat"), tmp_path / "run", **BIGGAN)
    assert "\n" not in str(caught.value)
    for split, names in (("train", CLASSES[:2]), ("val", CLASSES), ("test", CLASSES)):
        for n, name in enumerate(names):
            write_images(tmp_path / "split" / split / name, 10, n)
    with pytest.raises(OrchardError, match="class 'dog' is not among the training classes"):
        train("biggan_nano", str(tmp_path / "split"), tmp_path / "run", **BIGGAN)

    with pytest.raises(UsageError, match=r"setting 'data.folds' cuts each class .*; dcgan_nano has no classes"):
        train("dcgan_nano", str(images), tmp_path / "run", **{"data.folds": 3, "data.fold": 0, **SMALL})

    class Pictures(list[Any]):
        classes = CLASSES

    pixels = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8)
    given = Pictures((one, n % 2) for n, one in enumerate(pixels))
    with pytest.raises(OrchardError, match="has no training image of dog, which biggan_nano could not learn"):
        train("biggan_nano", given, tmp_path / "run", **BIGGAN)


def test_another_number_of_classes_is_refused(run: Path, images: Path, tmp_path: Path) -> None:
    architecture = {**BIGGAN["architecture"], "num_classes": 5}
    with pytest.raises(UsageError, match=r"setting 'architecture.num_classes' is 5; the data have 3 classes"):
        train("biggan_nano", str(images), tmp_path / "run", **{**BIGGAN, "architecture": architecture})
    with pytest.raises(UsageError, match=r"has learned bird, cat, dog, here there are 10 classes \(0, 1, 2, \.\.\.\)"):
        train("biggan_nano", "digits", tmp_path / "run", start_from=str(run), **SMALL)
    train("biggan_nano", str(images), tmp_path / "on", start_from=str(run), **SMALL)
    assert load(tmp_path / "on").classes == CLASSES


class Brightness(nn.Module):
    """Class 0 for dark, 1 for bright images."""

    head_name = "head"

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Identity()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        mean = images.mean((1, 2, 3)) * self.weight
        return self.head(torch.stack([-mean, mean], dim=1))


def test_conditional_accuracy_by_hand() -> None:
    network = ClassifierFeatures(Brightness(), Preprocess((4, 4), 1, (0.5,), (1.0,)))
    judge = Judge(network, "", "", "", ("dark", "bright"), scores=True)
    images = torch.tensor([0, 255, 255, 0], dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 1, 4, 4)
    sample = judge.sample(images.split(3), 4)
    assert judge.accuracy(sample, [1, 0, 0, 0], ("bright", "dark")) == {ACCURACY: 0.75}
    assert judge.accuracy(sample, [0, 1, 0, 1], ("bright", "blue")) == {}
    assert judge.accuracy(sample, [], ()) == {}
