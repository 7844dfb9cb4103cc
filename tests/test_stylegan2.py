"""StyleGAN2's parts against what they stand for, and the pair in training and at work."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from stopping import stopped_after
from torch import Tensor, nn

from orchard.app.answer import answer
from orchard.app.importing import import_checkpoint
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.errors import UsageError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.nn.equalised import EqualisedConv2d, EqualisedLinear
from orchard.nn.filtered_resampling import Doubling, LowPass, halving
from orchard.nn.minibatch_stddev import MinibatchStddev
from orchard.nn.modulated_conv import ModulatedConv2d
from orchard.nn.noise_injection import NoiseInjection
from orchard.tasks.unconditional_image_generation.adversarial import Adversarial, generate
from orchard.tasks.unconditional_image_generation.objective import family_of
from orchard.tasks.unconditional_image_generation.path_length import path_lengths, path_penalty
from orchard.tasks.unconditional_image_generation.settings import OBJECTIVES, AdversarialSettings, Options
from orchard.tasks.unconditional_image_generation.styles import training_latents
from orchard.training.settings import OptimizerSettings
from orchard.weights.official import export_official, read_official

# Parts


def test_equalised_layers_keep_the_variance_and_learn_at_their_own_speed() -> None:
    torch.manual_seed(0)
    slow = EqualisedLinear(400, 300, bias=1.0, lr_multiplier=0.01)
    assert float(slow.weight.detach().std()) == pytest.approx(100, rel=0.02)
    out = slow(torch.randn(50, 400)).detach()
    assert float(out.mean()) == pytest.approx(1, abs=0.05) and float(out.std()) == pytest.approx(1, rel=0.05)
    conv = EqualisedConv2d(30, 200, 3, padding=1)
    out = conv(torch.randn(4, 30, 12, 12)).detach()[:, :, 1:-1, 1:-1]
    assert float(conv.weight.detach().std()) == pytest.approx(1, rel=0.02)
    assert float(out.std()) == pytest.approx(1, rel=0.05)


def zeros_between(x: Tensor) -> Tensor:
    wide = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    wide[:, :, ::2, ::2] = x
    return wide


def test_resampling_is_zeros_between_pixels_the_filter_and_every_second_pixel() -> None:
    x = torch.randn(2, 3, 6, 8)
    torch.testing.assert_close(Doubling()(x), LowPass(2, 1, gain=4.0)(zeros_between(x)))
    torch.testing.assert_close(halving()(x), LowPass(1, 1)(x)[:, :, ::2, ::2])
    bilinear = F.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(Doubling()(x)[:, :, 1:-1, 1:-1], bilinear[:, :, 1:-1, 1:-1])
    flat = torch.ones(1, 1, 8, 8)
    torch.testing.assert_close(halving()(flat)[:, :, 1:-1, 1:-1], torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize(("demodulate", "upsample"), [(True, False), (False, False), (True, True)])
def test_a_modulated_convolution_is_one_of_each_sample_s_own_weights(demodulate: bool, upsample: bool) -> None:
    torch.manual_seed(0)
    layer = ModulatedConv2d(5, 7, 3, 4, demodulate=demodulate, upsample=upsample).double()
    x, styles = torch.randn(3, 5, 6, 6).double(), torch.randn(3, 4).double()
    expected = []
    for one, style in zip(x, styles, strict=True):  # equations 1 and 3 of the paper
        weight = layer.weight * layer.gain * layer.style(style)[None, :, None, None]
        if demodulate:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if upsample:
            wide = F.conv_transpose2d(one[None], weight.transpose(0, 1), stride=2)
            expected.append(LowPass(1, 1, gain=4.0).double()(wide))
        else:
            expected.append(F.conv2d(one[None], weight, padding=1))
    torch.testing.assert_close(layer(x, styles), torch.cat(expected))


def test_a_demodulated_map_has_unit_variance_whatever_the_style() -> None:
    torch.manual_seed(0)
    layer = ModulatedConv2d(32, 64, 3, 8)
    found = [layer(torch.randn(2, 32, 16, 16), size * torch.randn(2, 8)).std().item() for size in (0.1, 1, 30)]
    assert found == pytest.approx([1, 1, 1], rel=0.1)


def test_the_minibatch_s_standard_deviation_is_of_groups_across_the_batch() -> None:
    x = torch.randn(8, 3, 2, 2)
    out = MinibatchStddev()(x)
    torch.testing.assert_close(out[:, :3], x)
    for start in (0, 1):  # 0, 2, 4, 6 and 1, 3, 5, 7
        spread = x[start::2].std(0, unbiased=False).mean()
        torch.testing.assert_close(out[start::2, 3], spread.expand(4, 2, 2))
    alike = MinibatchStddev()(x[:1].repeat(4, 1, 1, 1))[:, 3]
    assert float(alike.max()) == pytest.approx(1e-4)
    assert MinibatchStddev()(x[:6]).shape == (6, 4, 2, 2)  # in threes
    assert float(MinibatchStddev()(x[:5])[0, 3, 0, 0]) == pytest.approx(1e-4)  # each alone


def test_noise_is_new_in_training_stored_otherwise_and_starts_at_nothing() -> None:
    noise = NoiseInjection(4)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(noise(x), x)
    nn.init.ones_(noise.strength)
    assert not torch.equal(noise(x), noise(x))
    noise.eval()
    torch.testing.assert_close(noise(x), x + noise.stored)
    given = torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(noise(x, given), x + given)


# Path length


def test_path_lengths_of_a_linear_generator_by_hand() -> None:
    """Each of two layers moves its own pixel by 3 w₀ + 4 w₁, so that a step along the slope is 5 long at each."""
    latents = torch.randn(6, 2, 2, requires_grad=True)
    weight = torch.tensor([3.0, 4.0])

    def synthesise(styles: Tensor) -> Tensor:
        return (styles @ weight)[:, None, None]  # (6, 1, 1, 2)

    noise = torch.ones(6, 1, 1, 2)
    lengths = path_lengths(synthesise, latents, noise)
    torch.testing.assert_close(lengths, torch.full((6,), 5 / 2**0.5))  # two pixels share the noise
    penalty, mean = path_penalty(torch.tensor([1.0, 3.0]), torch.tensor(1.0))
    assert float(mean) == pytest.approx(1.01)
    assert float(penalty) == pytest.approx((0.01**2 + 1.99**2) / 2)


def test_path_length_teaches_a_generator_of_any_kind() -> None:
    """Directions that images depend on less come to count as much as the others."""
    torch.manual_seed(0)
    layer, mean = nn.Linear(2, 64, bias=False), torch.tensor(0.5)
    nn.init.orthogonal_(layer.weight)
    with torch.no_grad():
        layer.weight[:, 0] *= 8
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(150):
        latents = torch.randn(32, 1, 2, requires_grad=True)
        lengths = path_lengths(lambda w: layer(w).view(-1, 1, 8, 8), latents, torch.randn(32, 1, 8, 8))
        penalty, mean = path_penalty(lengths, mean)
        optimizer.zero_grad()
        penalty.backward()
        optimizer.step()
    strongest, weakest = torch.linalg.svdvals(layer.weight.detach()).tolist()
    assert strongest < 2 * weakest  # of 8 times


# In training

SMALL: dict[str, Any] = {
    "architecture": {"widths": [8, 6], "noise": 6, "mapping_layers": 2},
    "image_size": 8,
    "batch_size": 16,
    "max_steps": 6,
    "generation.samples": 40,
    "optimizer.name": "adam",
    "optimizer.lr": 2e-3,
    "optimizer.momentum": 0.0,
    "optimizer.beta2": 0.99,
    "ema": 0.9,
    "adversarial.regulariser_every": 3,
    "adversarial.path_length_every": 2,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stylegan2") / "run"
    train("stylegan2_nano", "digits", path, **SMALL, log_every=1)
    return path


def test_stopped_between_lazy_phases_and_resumed_ends_in_the_same_bits(run: Path, tmp_path: Path) -> None:
    with stopped_after(3, 6):
        train("stylegan2_nano", "digits", tmp_path / "parts", **SMALL, log_every=1)
    (checkpoint,) = (tmp_path / "parts" / "checkpoints").glob("step_*")
    kept = load_file(checkpoint / "model.safetensors")["path_length"]
    assert 0 < float(kept) < 1  # after the steps 0 and 2
    train("stylegan2_nano", "digits", tmp_path / "parts", **SMALL, log_every=1)
    one, two = (load_file(path / "model" / "model.safetensors") for path in (run, tmp_path / "parts"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_log_and_the_report_have_both_regularisers(run: Path) -> None:
    with (run / "log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    lengths = [float(row["path_length"]) for row in rows]
    assert lengths[0] == 0 < lengths[1] == lengths[2] < lengths[3]  # known from the step after its own
    assert [bool(row["regulariser"]) for row in rows] == [True, False, False, True, False, False]
    page = (run / "report.html").read_text()
    assert "Path length" in page and "Regulariser" in page


def test_adam_is_corrected_for_the_updates_of_lazy_regularisers() -> None:
    objective = Adversarial(AdversarialSettings(**OBJECTIVES["stylegan2"].values))
    assert [(phase.name, phase.every) for phase in objective.phases] == [
        ("discriminator", 1), ("regulariser", 16), ("generator", 1), ("path_length", 4)
    ]  # fmt: skip
    adam = OptimizerSettings(name="adam", lr=0.002, momentum=0.0, beta2=0.99)
    for name, share in (("main", 4 / 5), ("discriminator", 16 / 17)):
        found = objective.optimizer_settings(name, adam)
        assert (found.lr, found.momentum, found.beta2) == pytest.approx((0.002 * share, 0, 0.99**share))
    plain = Adversarial(AdversarialSettings(regulariser="r1", regulariser_every=16))
    assert plain.optimizer_settings("discriminator", adam) == adam and not plain.memory


def test_styles_are_mixed_in_most_steps_from_a_layer_on() -> None:
    pair: Any = create_model("stylegan2_nano", **SMALL["architecture"], image_size=8).eval()
    torch.manual_seed(0)
    firsts = []
    for _ in range(60):
        styles = training_latents(pair, pair.sample_noise(3), 0.5)
        firsts.append(next((n for n in range(1, 4) if not torch.equal(styles[:, n], styles[:, 0])), 0))
    assert set(firsts) == {0, 1, 2, 3} and 20 <= firsts.count(0) <= 40
    assert torch.equal(training_latents(pair, noise := pair.sample_noise(2), 0.0), pair.latents(noise))


@pytest.mark.parametrize(("settings", "named"), [
    ({"objective": "stylegan2"}, "path_length_weight"), ({"adversarial.mixing": 0.5}, "mixing")
])  # fmt: skip
def test_a_generator_without_styles_is_refused(settings: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"adversarial.{named}': DCGAN has no styles .*; set adversarial.{named}=0"):
        train("dcgan_nano", "digits", tmp_path / "run", **settings)


# At work


def test_a_seed_gives_the_same_image_beside_any_others(run: Path) -> None:
    make = pipeline(run)
    three, two = make(count=3, seed=5), make(count=2, seed=5)
    assert all(one.tobytes() == other.tobytes() for one, other in zip(three, two, strict=False))
    assert three[0].tobytes() != three[1].tobytes()
    assert make(seed=5, truncation=1.0)[0].tobytes() == three[0].tobytes()


def test_truncation_mixing_and_walks() -> None:
    torch.manual_seed(0)
    pair: Any = create_model("stylegan2_nano", **SMALL["architecture"], image_size=8).eval()

    def images(**options: Any) -> Tensor:
        (found,) = generate(pair, 1, range(options.get("count", 4)), Options(**options))
        return found

    plain, other = images(count=4), next(generate(pair, 2, range(4), Options()))
    mean = images(count=4, truncation=0.0)
    half = images(count=4, truncation=0.5)
    assert float(mean.std(0).max()) < 1e-6 < float(half.std(0).max()) < float(plain.std(0).max())
    torch.testing.assert_close(mean[0], pair.synthesise(pair.mean_latent().expand(1, 4, -1))[0])
    mixed = images(count=4, mixing=2)
    assert not torch.allclose(mixed, plain) and not torch.allclose(mixed, other)
    torch.testing.assert_close(images(count=4, mixing=1), plain)
    walk = images(count=5, walk=2)
    torch.testing.assert_close(walk[0], plain[0])
    torch.testing.assert_close(walk[4], other[0])
    whole, parts = walk, torch.cat([next(generate(pair, 1, [n], Options(count=5, walk=2))) for n in range(5)])
    torch.testing.assert_close(whole, parts)


def test_a_walk_is_a_gif_of_images_that_say_where_they_are(run: Path, tmp_path: Path) -> None:
    (files,) = answer(run, [], {"count": 4, "walk": 7, "truncation": 0.8, "out": tmp_path / "out"})
    table = files.to_json()
    with Image.open(table["animation"]) as walk:
        assert walk.n_frames == 4 and walk.size == (8, 8)
    with Image.open(table["pictures"][2]) as image:
        found = {name: image.info[name] for name in ("seed", "number", "walk", "count", "truncation")}
    assert found == {"seed": "0", "number": "2", "walk": "7", "count": "4", "truncation": "0.8"}
    with pytest.raises(UsageError, match="option 'walk' needs --count"):
        list(answer(run, [], {"walk": 7}))
    with pytest.raises(UsageError, match="'walk' and 'mixing' do not go together"):
        list(answer(run, [], {"count": 2, "walk": 7, "mixing": 1}))


@pytest.mark.parametrize("name", ["dcgan_nano", "ddpm_nano"])
def test_models_without_styles_refuse_their_options(name: str) -> None:
    model = create_model(name)
    for option, value in (("truncation", 0.5), ("mixing", 1), ("grid", 1)):
        with pytest.raises(UsageError, match=f"option '{option}' is for models with styles"):
            family_of(model).steps(model, Options(**{option: value}))


# Names and sizes


def test_one_nano_is_of_grey_and_of_colour_images() -> None:
    for size, channels in ((28, 1), (32, 1), (32, 3)):
        pair: Any = create_model("stylegan2_nano", image_size=size, in_channels=channels).eval()
        images = pair.generate(pair.sample_noise(2))
        assert images.shape == (2, channels, size, size) and pair.discriminator(images).shape == (2,)
    with pytest.raises(UsageError, match="stylegan2_nano: an image of 30 pixels is not halved evenly 2 times"):
        create_model("stylegan2_nano", image_size=30)


def test_official_names_have_the_filters_and_widths_are_read_off_the_shapes() -> None:
    small = {"noise": 8, "mapping_layers": 2}
    pair = create_model("stylegan2_nano", **small, widths=(6, 5, 4))
    state = export_official(pair, "rosinality")
    kernel = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64
    assert torch.equal(state["generator.convs.0.conv.blur.kernel"], 4 * kernel)
    assert torch.equal(state["discriminator.convs.1.skip.0.kernel"], kernel)
    state["generator.latent_avg"] = torch.zeros(8)
    found = read_official("stylegan2_nano", state, None, small)
    assert found.ignored == ("generator.latent_avg",)
    assert all(torch.equal(tensor, found.model.state_dict()[name]) for name, tensor in pair.state_dict().items())


def test_a_file_of_a_training_becomes_the_averaged_generator_and_its_discriminator(tmp_path: Path) -> None:
    small = {"image_size": 16, "noise": 8, "mapping_layers": 2, "widths": [6, 5, 4]}
    pair = create_model("stylegan2_256", **small)
    state = export_official(pair, "rosinality")
    networks = {
        side: {name.removeprefix(f"{side}."): tensor for name, tensor in state.items() if name.startswith(side)}
        for side in ("generator", "discriminator")
    }
    live = {name: tensor + 1 for name, tensor in networks["generator"].items()}
    whole = {"g": live, "d": networks["discriminator"], "g_ema": networks["generator"], "args": {"iter": 5}}
    torch.save(whole, tmp_path / "000005.pt")
    torch.save({"g_ema": networks["generator"], "latent_avg": torch.zeros(8)}, tmp_path / "converted.pt")
    found = import_checkpoint("stylegan2_256", tmp_path / "000005.pt", tmp_path / "whole", overrides=small)
    assert not found.remarks
    for name, tensor in load(tmp_path / "whole").model.state_dict().items():
        assert torch.equal(tensor, pair.state_dict()[name]), name
    found = import_checkpoint("stylegan2_256", tmp_path / "converted.pt", tmp_path / "half", overrides=small)
    assert "discriminator is a fresh one" in found.remarks[0]
    assert torch.equal(load(tmp_path / "half").model.generator.constant, pair.generator.constant)
