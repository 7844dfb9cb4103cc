"""SRGAN: its sizes and official files, trainings from nothing and from an SRResNet, the perceptual loss."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from orchard.app.importing import import_checkpoint
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.data.contracts import Preprocess
from orchard.errors import UsageError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.tasks.super_resolution.adversarial import AdversarialSettings
from orchard.tasks.super_resolution.adversarial_objective import AdversarialSuperResolution, total_variation
from orchard.tasks.super_resolution.perceptual import FeatureDifference
from orchard.weights.official import export_official
from orchard.weights.portable import Portable, save_portable

ARCHITECTURE = {"blocks": 1, "width": 8, "scale": 2}
DISCRIMINATOR = {"discriminator_widths": (4, 6, 8, 8), "discriminator_hidden": 8, "discriminator_cells": 2}
SMALL: dict[str, Any] = {
    "patch": 16,
    "patches_per_image": 4,
    "batch_size": 4,
    "max_steps": 4,
    "log_every": 1,
    "evaluate_steps": 2,
    "schedule.name": "constant",  # not one of the number of steps, which differs where a training goes on
    "data.workers": 0,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for n in range(10):
        fields = np.random.default_rng(n).integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(fields).resize((40, 44), Image.Resampling.BICUBIC).save(root / f"{n}.png")
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("runs") / "run"
    return path, train("srgan_nano", str(folder), path, architecture=ARCHITECTURE | DISCRIMINATOR,
                       adversarial={"discriminator_start": 2}, **SMALL)  # fmt: skip


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a VGG of colours that takes images of 8 pixels on."""
    path = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    model: Any = create_model("vgg_nano", in_channels=3, widths=(4, 4, 4), hidden=8)
    preprocess = Preprocess((32, 32), 3, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)).to_json()
    about = Portable("vgg_nano", vars(model.config), "image-classification", tuple("0123456789"), preprocess)
    save_portable(path, model, about)
    return path


def logged(path: Path, column: str) -> list[str]:
    with (path / "log.csv").open() as file:
        return [row[column] for row in csv.DictReader(file) if row["split"] == "train"]


def test_sizes_and_names_are_those_of_the_paper_and_of_official_files(golden: Path) -> None:
    with torch.device("meta"):
        paper, port = create_model("srgan"), create_model("srgan", blocks=5, output="tanh", discriminator_cells=1)
        scores = paper.discriminator(torch.empty(2, 3, 96, 96))  # type: ignore[operator]
    assert sum(p.numel() for p in paper.discriminator.parameters()) == 23_565_505 and scores.shape == (2,)  # type: ignore[union-attr]
    keys = json.loads((golden / "srgan" / "official_checkpoint_keys.json").read_text())
    theirs = {f"generator.{name}": shape for name, shape in keys["leftthomas_generator_x4"].items()}
    theirs |= {f"discriminator.{name}": shape for name, shape in keys["leftthomas_discriminator"].items()}
    assert {name: list(tensor.shape) for name, tensor in export_official(port, "leftthomas").items()} == theirs


def test_a_pair_learns_in_two_phases_and_the_last_is_kept(run: tuple[Path, dict[str, Any]]) -> None:
    path, metrics = run
    assert metrics["best_step"] == metrics["steps"] == 4 and np.isfinite(metrics["test"]["psnr"])
    assert [bool(value) for value in logged(path, "discriminator_loss")] == [False, False, True, True]
    assert [bool(value) for value in logged(path, "adversarial_loss")] == [False, False, True, True]
    assert "Score of enlarged images" in (path / "report.html").read_text()
    assert pipeline(path)(Image.new("RGB", (20, 12))).size == (40, 24)


def test_a_run_goes_on_as_if_it_had_not_stopped(run: tuple[Path, dict[str, Any]], folder: Path, tmp_path: Path) -> None:
    settings = {"architecture": ARCHITECTURE | DISCRIMINATOR, "adversarial": {"discriminator_start": 2}}
    train("srgan_nano", str(folder), tmp_path / "run", **settings, **SMALL | {"max_steps": 3})
    train("srgan_nano", str(folder), tmp_path / "run", **settings, **SMALL)
    weights = [load_file(at / "model" / "model.safetensors") for at in (run[0], tmp_path / "run")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_the_generator_begins_as_an_srresnet(
    folder: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of its sizes; with a classifier's features in the loss."""
    train("srresnet_nano", str(folder), tmp_path / "first", architecture=ARCHITECTURE, **SMALL)
    more = {"optimizer": {"lr": 1e-9}, "adversarial": {"perceptual": str(classifier)}, "architecture": DISCRIMINATOR}
    train("srgan_nano", str(folder), tmp_path / "second", start_from=str(tmp_path / "first"), **SMALL, **more)
    assert "nothing perceptual" not in capsys.readouterr().err
    before, after = (load_file(tmp_path / one / "model" / "model.safetensors") for one in ("first", "second"))
    for name in ("head.weight", "blocks.0.conv1.weight", "upsample.0.conv.weight"):
        torch.testing.assert_close(after[f"generator.{name}"], before[name], atol=1e-6, rtol=0)
    assert load(tmp_path / "second").model.config.width == 8
    assert all(float(value) > 0 for value in logged(tmp_path / "second", "perceptual_loss"))
    with pytest.raises(UsageError, match="has width 8, not 12; leave it out"):
        train("srgan_nano", str(folder), start_from=str(tmp_path / "first"), architecture={"width": 12}, **SMALL)
    with pytest.raises(UsageError, match=r"holds a srresnet_nano, not a edsr_nano"):
        train("edsr_nano", str(folder), start_from=str(tmp_path / "first"), **SMALL)


def test_without_a_classifier_it_is_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = SMALL | {"max_steps": 1, "evaluate_steps": None}
    train("srgan_nano", str(folder), tmp_path / "run", architecture=ARCHITECTURE | DISCRIMINATOR, **settings)
    assert "names no classifier: nothing perceptual is learned" in capsys.readouterr().err
    assert (tmp_path / "run" / "report.html").exists()


def test_features_are_compared_as_the_classifier_sees_them(classifier: Path, run: tuple[Path, dict[str, Any]]) -> None:
    device = torch.device("cpu")
    difference = FeatureDifference(str(classifier), 32, device)
    images, other = torch.rand(2, 3, 32, 32, requires_grad=True), torch.rand(2, 3, 32, 32)
    found = difference(images, other)
    model: Any = load(classifier).model
    mean = torch.tensor((0.5, 0.4, 0.3)).view(3, 1, 1)
    a, b = (model.features((x - mean) / 0.2) for x in (images, other))
    torch.testing.assert_close(found, (a - b).square().mean())
    assert not difference(images, images).detach().any() and torch.autograd.grad(found, images)[0].abs().max() > 0
    with pytest.raises(UsageError, match=r"expected pictures of at least 8 pixels a side.*; set a larger patch"):
        FeatureDifference(str(classifier), 4, device)
    with pytest.raises(UsageError, match="expected a classifier of colour images that has feature maps"):
        FeatureDifference(str(run[0]), 32, device)


def test_the_generator_s_loss_is_the_weighted_sum() -> None:
    settings = AdversarialSettings(weight=0.1, pixel_weight=2, total_variation_weight=0.5, perceptual_weight=3)
    objective = AdversarialSuperResolution(settings, "l1", lambda a, b: (a - b).square().mean())
    found, truth, scores = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8), torch.randn(2)
    pixel, square = (found - truth).abs().mean(), (found - truth).square().mean()
    adversarial = -scores.sigmoid().log().mean()
    wanted = 2 * pixel + 0.1 * adversarial + 0.5 * total_variation(found) + 3 * square
    torch.testing.assert_close(objective.total(objective.terms(found, truth, scores)), wanted)


def test_both_files_of_a_pair_are_imported(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"blocks": 1, "width": 8, **DISCRIMINATOR}
    theirs = export_official(create_model("srgan", **settings), "leftthomas")
    for name in ("generator", "discriminator"):
        network = {key.removeprefix(f"{name}."): one for key, one in theirs.items() if key.startswith(name)}
        save_file(network, tmp_path / f"{name}.safetensors")
    found = import_checkpoint("srgan", tmp_path / "generator.safetensors", tmp_path / "model",
                           files=[tmp_path / "discriminator.safetensors"], overrides=settings)  # fmt: skip
    assert found and load(tmp_path / "model").name == "srgan"
    kept = load_file(tmp_path / "model" / "model.safetensors")
    assert torch.equal(kept["discriminator.score.weight"], theirs["discriminator.net.26.weight"])
