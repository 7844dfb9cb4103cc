"""Pairs that are told what to make, or find out what there is to tell: CGAN and InfoGAN."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from stopping import stopped_after
from torch import Tensor

from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.data.batches import ImageBatch
from orchard.data.settings import PictureSource
from orchard.errors import UsageError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.models.generation.infogan import InfoGANConfig
from orchard.nn.latent_codes import LatentCodes
from orchard.tasks.unconditional_image_generation.adversarial import generate, make_objective, steps
from orchard.tasks.unconditional_image_generation.codes import cluster_accuracy, measure, pictured, values_of
from orchard.tasks.unconditional_image_generation.job import evaluate_loaded
from orchard.tasks.unconditional_image_generation.learner import GenerationLearner
from orchard.tasks.unconditional_image_generation.settings import AdversarialSettings, Options, Settings

# CGAN


def test_cgan_by_hand() -> None:
    """Class and noise meet after a layer of their own each, in both networks."""
    torch.manual_seed(0)
    pair: Any = create_model("cgan", image_size=4, num_classes=3).eval()
    noise, labels = pair.sample_noise(5), torch.tensor([0, 1, 2, 2, 0])
    assert float(noise.abs().max()) <= 1 and noise.shape == (5, 100)
    w = pair.state_dict()

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def maxout(name: str, x: Tensor, units: int) -> Tensor:
        return linear(f"{name}.linear", x).view(len(x), units, -1).amax(2)

    one_hot = torch.eye(3)[labels]
    met = torch.cat(
        [linear("generator.from_noise.0", noise).relu(), linear("generator.from_class.0", one_hot).relu()], 1
    )
    assert met.shape == (5, 1200)
    hidden = linear("generator.joint.0", met).relu()
    images = linear("generator.joint.3", hidden).sigmoid().view(5, 1, 4, 4)
    torch.testing.assert_close(pair(noise, labels), images)
    seen = maxout("discriminator.from_image.1", images.flatten(1), 240)
    told = maxout("discriminator.from_class.0", one_hot, 50)
    joint = maxout("discriminator.joint.0", torch.cat([seen, told], 1), 240)
    torch.testing.assert_close(pair.discriminator(images, labels), linear("discriminator.score", joint)[:, 0])
    pair.train()
    assert not torch.equal(pair(noise, labels), pair(noise, labels))  # dropout


def test_cgan_is_the_network_of_the_paper() -> None:
    count = sum(parameter.numel() for parameter in create_model("cgan").parameters())
    generator = 100 * 200 + 200 + 10 * 1000 + 1000 + 1200 * 1200 + 1200 + 1200 * 784 + 784
    discriminator = 5 * 240 * 785 + 5 * 50 * 11 + 4 * 240 * 291 + 241
    assert count == generator + discriminator


# Codes


def test_codes_are_categories_and_numbers() -> None:
    codes = LatentCodes((3, 2), 2)
    rows = codes.sample(4000, torch.Generator().manual_seed(0), None)
    (first, second), numbers = codes.split(rows)
    assert rows.shape == (4000, codes.width) == (4000, 7)
    for part in (first, second):
        assert torch.equal(part.sum(1), torch.ones(4000)) and set(part.unique().tolist()) == {0.0, 1.0}
        assert float((part.mean(0) - 1 / part.shape[1]).abs().max()) < 0.03
    assert float(numbers.abs().max()) <= 1 and abs(float(numbers.var()) - 1 / 3) < 0.02


def test_information_by_hand() -> None:
    codes = LatentCodes((4,), 1)
    rows = torch.cat([torch.eye(4), torch.tensor([[-1.0], [0.0], [0.5], [1.0]])], 1)
    found = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    logs = sum(float(F.log_softmax(found[n, :4], 0)[n]) for n in range(4)) / 4
    normal = torch.distributions.Normal(found[:, 4], 1.0).log_prob(rows[:, 4]).mean()
    expected = math.log(4) + logs + math.log(2) + float(normal)
    assert float(codes.information(rows, found)) == pytest.approx(expected, rel=1e-5)
    nothing = torch.zeros(4, 5)
    sure = torch.cat([100 * rows[:, :4], rows[:, 4:]], 1)
    most = math.log(4) + math.log(2) - 0.5 * math.log(2 * math.pi)
    assert float(codes.information(rows, sure)) == pytest.approx(most, rel=1e-5)
    assert float(codes.information(rows, nothing)) < 0 < float(codes.information(rows, sure))
    assert float(LatentCodes((4,), 0).information(rows[:, :4], nothing[:, :4])) == pytest.approx(0, abs=1e-6)


def test_infogan_is_the_authors_network_for_mnist() -> None:
    torch.manual_seed(0)
    pair: Any = create_model("infogan")
    generator = 74 * 1024 + 1024 + 2 * 1024 + 1024 * 6272 + 6272 + 2 * 6272 + 128 * 64 * 16 + 64 + 128 + 64 * 16 + 1
    shared = 64 * 17 + 128 * 64 * 16 + 128 + 2 * 128 + 6272 * 1024 + 1024 + 2 * 1024
    heads = 1025 + 1024 * 128 + 128 + 2 * 128 + 128 * 12 + 12
    assert sum(parameter.numel() for parameter in pair.parameters()) == generator + shared + heads
    noise = pair.sample_noise(200)
    assert noise.shape == (200, 74) and torch.equal(noise[:, 62:72].sum(1), torch.ones(200))
    images = pair.eval().generate(noise[:3])
    x = F.leaky_relu(F.conv2d(images, *pair.discriminator.shared[0].parameters(), stride=2, padding=1), 0.01)
    x = pair.discriminator.shared[3](F.conv2d(x, *pair.discriminator.shared[2].parameters(), stride=2, padding=1))
    x = pair.discriminator.shared[7](
        F.linear(F.leaky_relu(x, 0.01).flatten(1), *pair.discriminator.shared[6].parameters())
    )
    x = F.leaky_relu(x, 0.01)
    torch.testing.assert_close(pair.discriminator(images), pair.discriminator.score(x)[:, 0])
    head = pair.discriminator.recognition
    torch.testing.assert_close(pair.recognise(images), head[3](F.leaky_relu(head[1](head[0](x)), 0.01)))
    with pytest.raises(ValueError, match="one code or more"):
        InfoGANConfig(categories=(), continuous=0)
    with pytest.raises(ValueError, match="30 pixels is not halved evenly twice"):
        InfoGANConfig(image_size=30)


def test_both_networks_learn_to_say_the_codes() -> None:
    torch.manual_seed(0)
    pair: Any = create_model("infogan_nano", image_size=8, width=4, hidden=16, recognition=8, unstructured=2)
    settings = Settings(model="infogan_nano", data={"source": "x"}, adversarial=AdversarialSettings(information=1.0))
    objective = make_objective(settings, pair)
    learner = GenerationLearner(pair, (1, 8, 8), objective.memory)
    batch = ImageBatch(torch.rand(6, 1, 8, 8), torch.zeros(6, dtype=torch.int64), torch.arange(6))
    found = {}
    for weight in (0.0, 1.0):
        objective.losses.settings = AdversarialSettings(information=weight)
        for name, loss in (("d", objective.losses.discriminator), ("g", objective.losses.generator)):
            torch.manual_seed(1)
            found[name, weight], metrics = loss(learner, batch, 0)
            if name == "d" and weight:
                said = metrics["information"]
    torch.testing.assert_close(found["d", 0.0] - found["d", 1.0], said)
    side = [p for n, p in pair.named_parameters() if "recognition" in n]
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(found["d", 1.0], [side[0], side[-1]]))
    side = list(pair.generator.parameters())
    apart = torch.autograd.grad(found["g", 0.0] - found["g", 1.0], side[:1])[0]
    assert float(apart.abs().max()) > 0
    with pytest.raises(UsageError, match=r"DCGAN has no codes in its noise; set adversarial\.information=0"):
        make_objective(settings, create_model("dcgan_nano"))


def test_clusters_are_matched_with_classes() -> None:
    clusters, labels = torch.tensor([2, 2, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 1, 3])
    assert cluster_accuracy(clusters, labels) == pytest.approx(5 / 6)
    assert cluster_accuracy(torch.zeros(4, dtype=torch.int64), torch.arange(4)) == 0.25


def test_images_of_one_class_say_nothing_of_clusters() -> None:
    pair: Any = create_model("infogan_nano", image_size=8, width=4, hidden=16, recognition=8).eval()
    images, numbers = torch.rand(6, 1, 8, 8), torch.arange(6)
    assert measure(pair, [ImageBatch(images, torch.zeros(6, dtype=torch.int64), numbers)]) == {}
    assert set(measure(pair, [ImageBatch(images, numbers % 2, numbers)])) == {"cluster_accuracy"}
    assert measure(create_model("dcgan_nano"), []) == {}


def test_each_row_has_one_value_of_a_code() -> None:
    pair: Any = create_model("infogan_nano", image_size=8, categories=(3,), continuous=1, width=4, hidden=16).eval()
    asked: list[Tensor] = []
    pair.generate = lambda noise: asked.append(noise) or torch.zeros(len(noise), 1, 8, 8)
    shown = pictured(pair)
    assert [(title, tuple(images.shape)) for title, images in shown] == [
        ("category 1", (3, 10, 1, 8, 8)), ("number 1", (10, 10, 1, 8, 8)),
    ]  # fmt: skip
    categories = asked[0].unflatten(0, (3, 10))
    assert all(torch.equal(categories[n, :, 16:19], torch.eye(3)[n].expand(10, -1)) for n in range(3))
    numbers = asked[1].unflatten(0, (10, 10))
    torch.testing.assert_close(numbers[:, 0, 19], torch.linspace(-2, 2, 10))
    assert torch.equal(numbers[0, :, :19], numbers[9, :, :19]) and torch.equal(
        categories[0, :, 19], categories[2, :, 19]
    )


def test_codes_are_asked_for_by_their_values() -> None:
    codes = LatentCodes((3, 2), 2)
    assert values_of("2,0,0.5,-1", codes).tolist() == [0, 0, 1, 1, 0, 0.5, -1]
    for words in ("2,0,0.5", "3,0,0,0", "-1,0,0,0", "1.5,0,0,0", "a", "", "1,1,nan,0", "1,1,0,0,0"):
        with pytest.raises(UsageError, match="has a category from 0 to 2, then a category from 0 to 1, then 2 numbers"):
            values_of(words, codes)
    with pytest.raises(UsageError, match="'codes' is for models with codes in their noise"):
        steps(create_model("dcgan_nano"), Options(codes="1"))
    pair: Any = create_model("infogan_nano", image_size=8, width=4, hidden=16).eval()
    asked: list[Tensor] = []
    pair.generate = lambda noise: asked.append(noise) or torch.zeros(len(noise), 1, 8, 8)
    list(generate(pair, 0, range(3), Options(count=3, codes="7,2,0")))
    assert torch.equal(asked[0][:, 16:], values_of("7,2,0", pair.codes).expand(3, -1)) and asked[0][:, :16].std() > 0


# At work

SMALL: dict[str, Any] = {
    "architecture": {"width": 4, "hidden": 16, "recognition": 8, "unstructured": 4},
    "image_size": 8,
    "batch_size": 32,
    "max_steps": 6,
    "log_every": 2,
    "generation.samples": 40,
}


def test_infogan_is_trained_resumed_judged_and_reported(tmp_path: Path) -> None:
    whole = train("infogan_nano", "digits", tmp_path / "whole", **SMALL)
    settings = {**SMALL, "checkpoint_steps": 3}
    with stopped_after(4, 6):
        train("infogan_nano", "digits", tmp_path / "parts", **settings)
    assert train("infogan_nano", "digits", tmp_path / "parts", **settings)["test"] == whole["test"]
    assert 0.1 <= whole["test"]["cluster_accuracy"] <= 1
    log = (tmp_path / "whole" / "log.csv").read_text().splitlines()
    assert "information" in log[0] and "cluster_accuracy" in log[0]
    page = (tmp_path / "whole" / "report.html").read_text(encoding="utf-8")
    assert "Cluster accuracy" in page and "Category 1" in page and "Number 2" in page
    again = evaluate_loaded(load(tmp_path / "whole"), "digits", "test", PictureSource(source="digits"))
    assert again["cluster_accuracy"] == whole["test"]["cluster_accuracy"]


def test_infogan_learns_pictures_without_classes_too(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(30):
        Image.new("L", (8, 8), 8 * n).save(folder / f"{n}.png")
    found = train("infogan_nano", str(folder), tmp_path / "run", **{**SMALL, "max_steps": 2, "batch_size": 8})
    assert "fid" in found["test"] and "cluster_accuracy" not in found["test"]


def test_cgan_learns_classes_and_makes_those_asked_for(tmp_path: Path) -> None:
    small = {"noise": 4, "noise_units": 8, "class_units": 8, "joint_units": 8, "image_maxout": 8, "joint_maxout": 8}
    train("cgan_nano", "digits", tmp_path / "run", **{**SMALL, "architecture": small, "max_steps": 2})
    images = pipeline(tmp_path / "run")(count=2, classes="3,7")
    assert [image.info["class"] for image in images] == ["3", "3", "7", "7"]
