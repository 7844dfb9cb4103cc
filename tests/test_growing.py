"""Adversarial pairs that grow: levels and fading, the schedule, a training that is stopped while a level is new."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from stopping import stopped_after
from torch import Tensor

from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.errors import UsageError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.nn.growth import Growth
from orchard.nn.pixel_norm import pixel_norm
from orchard.tasks.unconditional_image_generation.adversarial import Adversarial, generate
from orchard.tasks.unconditional_image_generation.growing import Schedule, reduced
from orchard.tasks.unconditional_image_generation.losses import drift_term
from orchard.tasks.unconditional_image_generation.settings import OBJECTIVES, AdversarialSettings, Options
from orchard.training.optim import average_of
from orchard.weights.official import export_official, read_official

SMALL: dict[str, dict[str, Any]] = {
    "progan_nano": {"widths": (8, 6, 4), "noise": 6, "image_size": 8},
    "stylegan_nano": {"widths": (8, 6, 4), "noise": 6, "image_size": 8, "mapping_layers": 2},
}
names = pytest.mark.parametrize("name", SMALL)


def small(name: str, **overrides: Any) -> Any:
    torch.manual_seed(0)
    return create_model(name, **SMALL[name], **overrides).eval()


# Levels


@names
def test_a_pair_works_at_each_side_and_begins_a_level_where_the_last_one_ended(name: str) -> None:
    pair, noise = small(name), torch.randn(3, 6)
    assert pair.sides == (2, 4, 8) and (pair.level, pair.alpha) == (2, 1.0)
    for level, side in enumerate(pair.sides):
        pair.grow_to(level, 1.0)
        images = pair(noise)
        scores = pair.discriminator(images)
        assert images.shape == (3, 1, side, side) and scores.shape == (3,)
        if level < 2:
            wide = F.interpolate(images, scale_factor=2.0)
            pair.grow_to(level + 1, 0.0)
            torch.testing.assert_close(pair(noise), wide)
            torch.testing.assert_close(pair.discriminator(wide), scores)
            pair.grow_to(level + 1, 0.5)
            half = pair(noise)
            pair.grow_to(level + 1, 1.0)
            torch.testing.assert_close(half, (wide + pair(noise)) / 2)
    with pytest.raises(ValueError, match=r"expected pictures of shape .*8, 8"):
        pair.discriminator(torch.randn(2, 1, 4, 4))


@names
def test_only_the_layers_of_a_level_learn(name: str) -> None:
    pair = small(name).train()
    pair.grow_to(1, 0.5)
    pair.discriminator(pair(torch.randn(4, 6))).sum().backward()
    learning = {name for name, parameter in pair.named_parameters() if parameter.grad is not None}
    to_image = {n for n in range(3) if any(f"generator.to_image.{n}." in name for name in learning)}
    from_image = {n for n in range(3) if any(f"discriminator.from_image.{n}." in name for name in learning)}
    assert to_image == from_image == {0, 1} and not any("convs2.2" in name for name in learning)


def test_how_far_a_network_is_is_in_its_state_and_taken_over_by_an_average() -> None:
    pair, other = small("progan_nano"), small("progan_nano")
    average: Any = average_of(pair, 0.9)
    pair.grow_to(1, 0.35)
    assert pair.alpha == pytest.approx(0.35, abs=1e-7)
    average.update_parameters(pair)
    average.update_parameters(pair)
    average.module.read_growth()
    other.load_state_dict(pair.state_dict())
    assert (other.level, other.alpha) == (average.module.level, average.module.alpha) == (1, pair.alpha)
    with pytest.raises(ValueError, match="level from 0 to 2, got 3"):
        pair.grow_to(3, 1.0)
    with pytest.raises(ValueError, match="alpha from 0 to 1, got 2"):
        Growth(2).set(1, 2.0)


def test_images_of_a_pair_that_is_not_finished_are_enlarged() -> None:
    pair = small("progan_nano")
    pair.grow_to(0, 1.0)
    (images,) = generate(pair, 0, range(3), Options())
    assert images.shape == (3, 1, 8, 8)
    torch.testing.assert_close(images, F.interpolate(F.avg_pool2d(images, 4), scale_factor=4.0))


# The schedule


def test_a_level_is_faded_in_over_half_of_its_images() -> None:
    schedule = Schedule((2, 4, 8), phase_images=64, batch_size=8)
    found = [schedule.at(step) for step in range(26)]
    assert found[:9] == [(0, 1.0)] * 8 + [(1, 0.0)]
    assert found[8:16] == [(1, alpha) for alpha in (0, 0.25, 0.5, 0.75, 1, 1, 1, 1)]
    assert found[16:20] == [(2, alpha) for alpha in (0, 0.25, 0.5, 0.75)] and found[24:] == [(2, 1.0)] * 2
    assert schedule.finished == 20 and found[20:] == [(2, 1.0)] * 6
    assert "grows over 2, 4, 8 pixels, 64 images each: full size from step 21" in schedule.describe()
    assert Schedule((2, 4), 30, 8).finished == 6  # 48 images are the first that are 45 or more


def test_real_images_are_reduced_and_mixed_as_generated_ones_are() -> None:
    pair, images = small("progan_nano"), torch.randn(2, 1, 8, 8)
    assert torch.equal(reduced(images, pair), images)
    pair.grow_to(1, 0.25)
    small_ones, before = F.avg_pool2d(images, 2), F.interpolate(F.avg_pool2d(images, 4), scale_factor=2.0)
    torch.testing.assert_close(reduced(images, pair), 0.25 * small_ones + 0.75 * before)
    pair.grow_to(0, 0.25)
    torch.testing.assert_close(reduced(images, pair), F.avg_pool2d(images, 4))


# In training

TRAINING: dict[str, Any] = {
    "image_size": 8,
    "batch_size": 16,
    "max_steps": 12,
    "evaluate_steps": 6,
    "generation.samples": 40,
    "adversarial.phase_images": 64,
    "optimizer.name": "adam",
    "optimizer.momentum": 0.0,
    "optimizer.beta2": 0.99,
    "ema": 0.9,
    "log_every": 1,
}


def training(name: str) -> dict[str, Any]:
    architecture = {key: value for key, value in SMALL[name].items() if key != "image_size"}
    return {**TRAINING, "architecture": architecture}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("growing")
    for name in SMALL:
        train(name, "digits", folder / name, **training(name))
    return {name: folder / name for name in SMALL}


@names
def test_stopped_while_a_level_is_faded_in_and_resumed_ends_in_the_same_bits(
    name: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    with stopped_after(6, 12):
        train(name, "digits", tmp_path / "parts", **training(name))
    (checkpoint,) = (tmp_path / "parts" / "checkpoints").glob("step_*")
    kept = load_file(checkpoint / "model.safetensors")
    assert int(kept["model.generator.growth.reached"]) == 1 and 0 < int(kept["model.generator.growth.faded"]) < 2**24
    train(name, "digits", tmp_path / "parts", **training(name))
    one, two = (load_file(path / "model" / "model.safetensors") for path in (runs[name], tmp_path / "parts"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@names
def test_a_run_says_its_sides_and_its_images_have_the_full_one(name: str, runs: dict[str, Path]) -> None:
    run = runs[name]
    with (run / "log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    assert [float(row["side"]) for row in rows] == [2] * 4 + [4] * 4 + [8] * 4
    assert "Side" in (run / "report.html").read_text()
    model: Any = load(run).model
    assert (model.level, model.alpha) == (2, 1.0)
    images = pipeline(run)(count=2, seed=3)
    assert [image.size for image in images] == [(8, 8)] * 2 and images[0].tobytes() != images[1].tobytes()


# ProGAN's parts


def test_pixel_norm_gives_every_position_unit_mean_square() -> None:
    x = 5 * torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(pixel_norm(x).square().mean(1), torch.ones(2, 3, 3))
    torch.testing.assert_close(pixel_norm(x)[0, :, 1, 2], x[0, :, 1, 2] / x[0, :, 1, 2].square().mean().sqrt())


def test_drift_is_a_term_of_the_discriminator_s_loss_alone() -> None:
    assert float(drift_term(torch.tensor([1.0, 3.0]))) == 5
    assert OBJECTIVES["progan"].values["drift"] == 0.001
    pair = small("progan_nano")

    class Holder:
        model = pair

    class Batch:
        images = torch.randn(4, 1, 8, 8)

        def __len__(self) -> int:
            return 4

    def loss(drift: float) -> Tensor:
        torch.manual_seed(0)
        objective = Adversarial(AdversarialSettings(loss="wasserstein", drift=drift))
        return objective.losses.discriminator(Holder, Batch(), 0)[0]  # type: ignore[arg-type]

    torch.testing.assert_close(loss(2.0) - loss(0.0), 2 * pair.discriminator(Batch.images).square().mean())


def test_the_paper_s_form_by_hand() -> None:
    """At 2 x 2 pixels: normed code, two layers, each rectified and then normed, and a layer without either."""
    pair, z = small("progan_nano"), torch.randn(3, 6)
    pair.grow_to(0, 1.0)
    first, second = pair.generator.convs[:2]
    x = pixel_norm(z) @ first.weight.flip(2, 3).flatten(2).permute(1, 0, 2).flatten(1) * (2 / (6 * 4)) ** 0.5
    x = pixel_norm(F.leaky_relu(x.view(3, 8, 2, 2), 0.2))
    x = pixel_norm(F.leaky_relu(F.conv2d(x, second.weight * (2 / (8 * 9)) ** 0.5, padding=1), 0.2))
    torch.testing.assert_close(pair(z), F.conv2d(x, pair.generator.to_image[0].weight / 8**0.5))


def test_official_files_tell_the_form_widths_and_classes_and_draw_their_classes_with_the_noise() -> None:
    pair = small("progan_nano", classes=3, form="rosinality")
    noise = pair.sample_noise(50)
    assert torch.equal(noise[:, 3:].sum(1), torch.ones(50)) and int(noise[:, 3:].argmax(1).unique().numel()) == 3
    state = export_official(pair, "rosinality")
    assert not any("growth" in key for key in state)
    found = read_official("progan_nano", state, None, {"noise": 6, "image_size": 8})
    config: Any = found.model.config
    assert (config.form, config.classes, config.widths) == ("rosinality", 3, (8, 6, 4))
    assert all(torch.equal(tensor, found.model.state_dict()[key]) for key, tensor in pair.state_dict().items())
    with pytest.raises(UsageError, match="classes is 0 or more and less than noise"):
        create_model("progan_nano", classes=64)
    with pytest.raises(UsageError, match="an image of 30 pixels is not halved evenly 2 times"):
        create_model("progan_nano", image_size=30)


# StyleGAN's parts


def test_a_style_gives_each_map_its_mean_and_spread() -> None:
    pair = small("stylegan_nano")
    norm = pair.generator.epilogues[0].norm
    maps, style = norm(3 + 2 * torch.randn(2, 8, 16, 16), w := torch.randn(2, 6)), norm.style
    scale, shift = F.linear(w, style.weight / 6**0.5, style.bias).chunk(2, 1)
    torch.testing.assert_close(maps.mean((2, 3)), shift)
    torch.testing.assert_close(maps.std((2, 3), correction=0), scale.abs())
    assert float(style.bias.detach()[:8].min()) == 1 and float(style.bias.detach()[8:].abs().max()) == 0


def test_styles_are_those_of_the_level_and_are_mixed_truncated_and_walked_between() -> None:
    pair = small("stylegan_nano")
    with torch.no_grad():
        for epilogue in pair.generator.epilogues:
            epilogue.noise.strength.fill_(0.1)
    for level in range(3):
        pair.grow_to(level, 1.0)
        assert pair.latents(torch.randn(2, 6)).shape == (2, 2 * (level + 1), 6)

    def images(**options: Any) -> Tensor:
        (found,) = generate(pair, 1, range(4), Options(count=4, **options))
        return found

    plain, other = images(), next(generate(pair, 2, range(4), Options()))
    assert float(plain.std(0).max()) > 1e-3 and not torch.allclose(images(mixing=2), plain)
    torch.testing.assert_close(images(truncation=1.0), plain)
    walk = images(walk=2)
    torch.testing.assert_close(walk[0], plain[0])
    maps = pair.noise_maps(1)
    torch.testing.assert_close(
        pair.synthesise(pair.mean_latent().expand(1, 6, -1), maps),
        pair.synthesise(torch.lerp(pair.mean_latent(), pair.latents(torch.randn(1, 6)), 0.0), maps),
    )
    assert not torch.allclose(walk[3], plain[3]) and other.shape == walk.shape


def test_noise_of_an_export_is_always_the_same_and_in_no_file() -> None:
    one, two = small("stylegan_nano"), create_model("stylegan_nano", **SMALL["stylegan_nano"]).eval()
    assert not any("stored" in name for name in one.state_dict())
    two.load_state_dict(one.state_dict())
    with torch.no_grad():
        for pair in (one, two):
            pair.generator.epilogues[3].noise.strength.fill_(1.0)  # type: ignore[index,union-attr]
    noise = torch.randn(2, 6)
    assert torch.equal(one(noise), two(noise))


def test_the_paper_s_and_the_port_s_form_of_an_upsampling() -> None:
    """Away from the borders a bias may change places with the filter, whose taps sum to one."""
    x = torch.randn(1, 8, 4, 4)
    paper, port = (small("stylegan_nano", form=form).generator.upsamplings[0] for form in ("paper", "rosinality"))
    port.load_state_dict(paper.state_dict())
    with torch.no_grad():
        paper.bias.copy_(torch.randn(6))
        port.bias.copy_(paper.bias)
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(paper(x)[inner], port(x)[inner])
    assert not torch.allclose(paper(x), port(x))
