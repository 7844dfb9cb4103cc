"""Test-time augmentation: the mean of the answers for several views of an image."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import orchard
from PIL import Image
from torchvision.transforms.functional import ten_crop

import orchard as package
from orchard.errors import UsageError
from orchard.inference.loading import load
from orchard.inference.outputs import OneClass
from orchard.models import create_model
from orchard.tasks.image_classification.views import Viewed, Views
from orchard.weights.portable import Portable, architecture_of, save_portable


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of five noisy grey images, darker on one side."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in ("left", "right"):
        (root / name).mkdir()
        for number in range(5):
            pixels = np.linspace(0, 200, 40)[None, :] + rng.normal(0, 40, (40, 40))
            pixels = pixels if name == "left" else pixels[:, ::-1]
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / name / f"{number}.png")
    return root


def saved(folder: Path, seed: int = 0, classes: tuple[str, ...] = ("left", "right"), **facts: Any) -> Path:
    torch.manual_seed(seed)
    model: Any = create_model("lenet5", num_classes=len(classes), image_size=28)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    preprocess = {"size": [28, 28], "channels": 1, "mean": [0.4], "std": [0.3], "crop": 0.875}
    about = Portable("lenet5", architecture_of(model), "image-classification", classes, preprocess, facts=facts)
    save_portable(folder / str(seed), model, about)
    return folder / str(seed)


def test_views_are_those_of_torchvision() -> None:
    images = torch.randn(2, 3, 32, 34)
    found = list(Views("ten-crop", (28, 30))(images))
    a, b, c, d, middle, *mirror = ten_crop(images, [28, 30])  # crops, and crops of the mirror image
    expected = (a, b, c, d, middle, mirror[1], mirror[0], mirror[3], mirror[2], mirror[4])
    assert len(found) == Views("ten-crop", (28, 30)).count == 10
    for one, other in zip([*found[0::2], *found[1::2]], expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    straight, mirrored = Views("flip", (32, 34))(images)
    torch.testing.assert_close(straight.flip(-1), mirrored, rtol=0, atol=0)
    assert [one is images for one in Views("none", (32, 34))(images)] == [True]


def test_the_middle_crop_is_what_is_seen_without(images: Path, tmp_path: Path) -> None:
    """As long as the model sees no more than the middle 7/8 of an image."""
    loaded = load(saved(tmp_path))
    views = Views("ten-crop", loaded.pictures.size)
    larger = dataclasses.replace(loaded, preprocess=views.preprocess(loaded.pictures))
    path = images / "left" / "0.png"
    middle = list(views(larger.transform(path)[None]))[8]
    assert larger.pictures.size == (32, 32) and larger.pictures.crop == 1
    torch.testing.assert_close(middle[0], loaded.transform(path), atol=0.02, rtol=0)  # one level of 255 / 0.3


@pytest.mark.parametrize("tta", ["flip", "ten-crop"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_answers_are_the_mean_of_the_probabilities(images: Path, tmp_path: Path, tta: Any, temperature: float) -> None:
    run = saved(tmp_path, temperature=temperature)
    loaded = load(run)
    views = Views(tta, loaded.pictures.size)
    larger = dataclasses.replace(loaded, preprocess=views.preprocess(loaded.pictures))
    paths = sorted(images.glob("*/*.png"))
    with torch.no_grad():
        expected = torch.stack([
            torch.stack([(loaded.model(view) / temperature).softmax(1)[0] for view in views(larger.transform(p)[None])])
            .mean(0) for p in paths
        ])  # fmt: skip
    answers = package.pipeline(run, tta=tta)([str(path) for path in paths])
    found = torch.tensor([[dict(one.top)[name] for name in loaded.classes] for one in answers])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    plain = package.pipeline(run)([str(path) for path in paths])
    assert max(abs(a.top[0][1] - b.top[0][1]) for a, b in zip(answers, plain, strict=True)) > 0.01

    labels = torch.tensor([path.parent.name == "right" for path in paths]).long()
    loss = -expected[torch.arange(len(paths)), labels].log().mean()
    table = package.evaluate(run, str(images), settings={"evaluation.tta": tta})
    assert table["test"]["accuracy"] == pytest.approx((expected.argmax(1) == labels).float().mean().item())
    assert table["test"]["loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_several_models_see_the_same_views(images: Path, tmp_path: Path) -> None:
    runs = [saved(tmp_path, 1, temperature=2.0), saved(tmp_path, 2)]
    path = str(images / "left" / "1.png")
    each = [dict(package.pipeline(run, tta="flip")(path)[0].top) for run in runs]
    together = dict(package.pipeline(runs, tta="flip")(path)[0].top)
    assert together == pytest.approx({name: (each[0][name] + each[1][name]) / 2 for name in together}, abs=1e-6)
    table = package.evaluate(runs, str(images), settings={"evaluation.tta": "flip"})
    alone = [package.evaluate(run, str(images), settings={"evaluation.tta": "flip"})["test"] for run in runs]
    assert list(table["members"].values()) == alone


def test_outputs_say_the_answers_they_are_made_of() -> None:
    outputs = OneClass(("a", "b", "c"), temperature=3.0)
    answers = torch.tensor([[0.2, 0.3, 0.5]])
    torch.testing.assert_close(outputs.tensor(outputs.inverse(answers)), answers)
    viewed = Viewed(torch.nn.Identity(), Views("none", (1, 1)), outputs)
    torch.testing.assert_close(outputs.tensor(viewed(torch.tensor([[1.0, 2.0, 4.0]]))).sum(), torch.tensor(1.0))


def test_on_the_command_line(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, path = str(saved(tmp_path)), str(images / "left" / "2.png")
    texts = []
    for more in ([], ["--tta", "flip"], ["--tta", "ten-crop"]):
        assert orchard("predict", run, path, "--json", *more) == 0
        texts.append(capsys.readouterr().out)
    assert len(set(texts)) == 3
    assert orchard("predict", run, path, "--tta", "five") == 2
    assert "ten-crop" in capsys.readouterr().err
    characters = str(saved(tmp_path / "c", classes=("b", "d")))
    assert orchard("predict", characters, path, "--tta", "flip") == 0
    assert "a mirrored character is another or none" in " ".join(capsys.readouterr().err.split())


def test_a_wrong_kind_is_named(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"evaluation\.tta.*ten-crop"):
        package.evaluate(saved(tmp_path), str(images), settings={"evaluation.tta": "five"})
