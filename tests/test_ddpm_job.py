"""Training denoisers: exact, by any loss, measured in bits, and put to work in as many steps as are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stopping import stopped_after
from torch import Tensor

from orchard.app.answer import answer
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.data.batches import ImageBatch
from orchard.data.settings import CaptionSource
from orchard.errors import UsageError
from orchard.inference.diffusion import ImageNoise, bits_per_dimension
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.nn.diffusion_loss import BoundLoss, HybridLoss, SimpleLoss
from orchard.tasks.unconditional_image_generation.diffusion import generate, make_loss, measure, process_of
from orchard.tasks.unconditional_image_generation.job import evaluate_loaded
from orchard.tasks.unconditional_image_generation.objective import make_images
from orchard.tasks.unconditional_image_generation.settings import DiffusionSettings, Options

ARCHITECTURE = {"width": 8, "groups": 4, "multipliers": [1, 2], "attention_at": [4], "timesteps": 40}
SMALL: dict[str, Any] = {
    "architecture": ARCHITECTURE,
    "image_size": 8,
    "batch_size": 32,
    "max_steps": 6,
    "log_every": 2,
    "ema": 0.9,
    "generation.samples": 40,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ddpm") / "run"
    train("ddpm_nano", "digits", path, **SMALL)
    return path


@pytest.fixture(scope="module")
def model() -> Any:
    """A network whose last layer has left zero."""
    torch.manual_seed(0)
    found = create_model("ddpm_nano", image_size=8, **ARCHITECTURE).eval()
    torch.nn.init.normal_(found.unet.conv_out.weight, std=0.1)
    return found


def test_stopped_and_resumed_ends_in_the_same_bits(run: Path, tmp_path: Path) -> None:
    with stopped_after(5, 6):
        train("ddpm_nano", "digits", tmp_path / "parts", **SMALL)
    train("ddpm_nano", "digits", tmp_path / "parts", **SMALL)
    for file in ("model/model.safetensors", "evaluation/images.safetensors"):
        one, two = load_file(run / file), load_file(tmp_path / "parts" / file)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one), file


def test_the_run_has_metrics_a_model_and_a_report(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert 0.5 < metrics["test"]["squared_error"] < 1.1  # knowing nothing costs 1, and little is known after six steps
    assert metrics["test"]["bits_per_dimension"] > 2 and metrics["test"]["fid"] > 0
    found = evaluate_loaded(load(run), "digits", "test", CaptionSource(source="digits"))
    assert found.pop("count") > 0 and found.pop("about") == {"judge": metrics["judge"]}
    assert found == pytest.approx(metrics["test"])
    log = (run / "log.csv").read_text().splitlines()
    columns = log[0].split(",")
    validation = next(
        row for line in log if (row := dict(zip(columns, line.split(","), strict=True)))["split"] == "validation"
    )
    assert float(validation["bits_per_dimension"]) and float(validation["fid"])
    page = (run / "report.html").read_text()
    assert "Bound" in page and "Squared error" in page and "One row per evaluation" in page


def test_a_learned_variance_is_taught_by_the_bound(tmp_path: Path) -> None:
    settings = {**SMALL, "architecture": {**ARCHITECTURE, "heads": 2}, "max_steps": 2, "log_every": 1}
    train("improved_ddpm_nano", "digits", tmp_path / "run", **settings)
    log = (tmp_path / "run" / "log.csv").read_text().splitlines()
    first = dict(zip(log[0].split(","), log[1].split(","), strict=True))
    whole, parts = float(first["loss"]), float(first["squared_error"]) + float(first["bound"])
    assert float(first["bound"]) > 0 and whole == pytest.approx(parts, rel=1e-4)


def test_losses_go_with_variances() -> None:
    fixed, learned = (create_model(name).config.process() for name in ("ddpm_nano", "improved_ddpm_nano"))
    assert isinstance(make_loss(DiffusionSettings(), fixed), SimpleLoss)
    assert make_loss(DiffusionSettings(), learned) == HybridLoss(1.0)
    assert make_loss(DiffusionSettings(loss="bound"), fixed) == BoundLoss(1000)
    with pytest.raises(UsageError, match=r"'diffusion.loss': simple is not for a variance that is learned"):
        make_loss(DiffusionSettings(loss="simple"), learned)
    with pytest.raises(UsageError, match=r"'diffusion.loss': hybrid is not for a fixed variance"):
        make_loss(DiffusionSettings(loss="hybrid"), fixed)


def test_the_estimated_bound_is_that_of_all_steps(model: Any) -> None:
    """Over many images the one step of each stands for all of them."""
    count = 600
    x0 = torch.randint(256, (1, 1, 8, 8), generator=torch.Generator().manual_seed(1)) / 127.5 - 1
    x0 = x0.expand(count, 1, 8, 8)
    batch = ImageBatch(x0, torch.zeros(count, dtype=torch.int64), torch.arange(count))
    found = measure(model, [batch])
    process = process_of(model.config, torch.device("cpu"))
    noise = ImageNoise(5, range(8), (1, 8, 8))
    bits = bits_per_dimension(process, model, x0[:8], noise, clip=True)
    assert found["bits_per_dimension"] == pytest.approx(float(bits.total.mean()), rel=0.05)
    noise, errors = ImageNoise(5, range(8), (1, 8, 8)), []
    for t in range(40):
        drawn = noise()
        x_t = process.schedule.add_noise(x0[:8], drawn, torch.full((8,), t))
        errors.append((model(x_t, process.schedule.timesteps[t].expand(8)) - drawn).square().mean())
    assert found["squared_error"] == pytest.approx(float(torch.stack(errors).mean()), rel=0.05)


def test_images_depend_on_seed_number_steps_and_sampler(model: Any) -> None:
    def images(numbers: list[int], seed: int = 1, **options: Any) -> Tensor:
        return make_images(model, seed, numbers, Options(**options))

    three = images([0, 1, 2], steps=5)
    torch.testing.assert_close(three[1:2], images([1], steps=5), atol=1e-4, rtol=0)
    for other in (
        images([1], steps=6), images([1], seed=2, steps=5), images([1], steps=5, sampler="ddpm"),
        images([1], steps=5, eta=1.0),
    ):  # fmt: skip
        assert (three[1:2] - other).abs().max() > 1e-3
    assert torch.equal(images([0], steps=5, sampler="ddim"), images([0], steps=5, eta=0.0))
    steps: list[int] = []
    make_images(model, 1, [0], Options(), steps.append)
    assert steps == list(range(1, 41))  # 50, but no more than the process has
    assert len(list(generate(model, 1, [0], Options(steps=3)))) == 3


def test_options_that_do_not_go_with_the_model_are_refused(run: Path, tmp_path: Path) -> None:
    make = pipeline(run)
    assert len(make(count=2, seed=5, steps=4, sampler="ddpm")) == 2
    shares: list[float] = []
    list(make.generate(Options(count=2, steps=4), shares.append))
    assert shares == [0.25, 0.5, 0.75, 1.0]
    with pytest.raises(UsageError, match="option 'steps' is 41, expected at most 40"):
        make(steps=41)
    with pytest.raises(UsageError, match="option 'eta' is for the ddim sampler"):
        make(sampler="ddpm", eta=0.5)
    (files,) = answer(run, [], {"count": 2, "steps": 3, "out": tmp_path / "out"})
    assert len(files.to_json()["pictures"]) == 2
