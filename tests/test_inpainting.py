"""Holes: partial convolutions and their losses against stored tensors, training from any pictures, answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from commands import orchard
from PIL import Image
from safetensors.torch import load_file, save_file
from stopping import stopped_after
from torch import Tensor

from orchard.app.answer import answer
from orchard.app.evaluate import evaluate
from orchard.app.importing import import_checkpoint
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.data.counter_rng import uniforms
from orchard.data.holes import HOLES, NUMBERS, cut_hole
from orchard.data.two_sides.loader import SidesBatch
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.nn.partial_conv import PartialConv2d
from orchard.nn.pooled_features import PooledFeatures, gram
from orchard.tasks.image_to_image.adversarial_inpainting import AdversarialInpainting
from orchard.tasks.image_to_image.filling import spread
from orchard.tasks.image_to_image.inpainting import Inpainting
from orchard.tasks.image_to_image.inpainting_losses import feature_losses, perceptual, pixel_losses, style
from orchard.tasks.image_to_image.job import entries
from orchard.tasks.image_to_image.settings import AdversarialInpaintingSettings, InpaintingSettings
from orchard.tasks.unconditional_image_generation.learner import GenerationLearner
from orchard.weights.golden import GOLDEN, read_golden
from orchard.weights.official import export_official

PCONV: dict[str, Any] = {"widths": [4, 6, 8]}
SMALL: dict[str, Any] = {
    "image_size": 16, "batch_size": 2, "max_steps": 8, "log_every": 1, "evaluate_steps": 4, "data.workers": 0,
    "augmentation.enlarge": 1.25, "augmentation.flip": True,
}  # fmt: skip
SPLIT: dict[str, Any] = {"data.validation_fraction": 0.3}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Colour fields of several sizes, in folders of folders."""
    root = tmp_path_factory.mktemp("pictures")
    for n in range(14):
        fields = np.random.default_rng(n).integers(0, 256, (4, 5, 3), np.uint8)
        path = root / f"{'test' if n > 9 else 'train'}/{'ab'[n % 2]}/{n}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(fields).resize((24 + n, 20), Image.Resampling.BICUBIC).save(path)
    return root


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filling") / "run"
    train("pconv_unet_nano", str(pictures), path, architecture=PCONV, **SMALL, **SPLIT)
    return path


# Against official code


def test_partial_convolutions_are_those_of_nvidia() -> None:
    case = read_golden(GOLDEN / "partialconv/layers_a")
    layers = {name: row for name, row in case.meta["args"]["_layers"].items() if row[5] == 1}  # dilation
    total = torch.zeros(())
    built = {}
    for name, (inputs, outputs, kernel, stride, padding, _, bias, several, _) in layers.items():
        layer = built[name] = PartialConv2d(inputs, outputs, kernel, stride, padding, bias=bias)
        layer.conv.load_state_dict({key: case.state[f"{name}.{key}"] for key in layer.conv.state_dict()})
        known = case.given("maskC" if several else "mask1")
        found, seen = layer(case.given("x"), known)
        torch.testing.assert_close(found, case.computed(f"{name}_out"), atol=1e-5, rtol=0)
        wanted = case.computed(f"{name}_mask_out")
        assert torch.equal(seen.expand_as(wanted), wanted)
        total = total + found.square().sum()
    torch.autograd.backward(total)
    for name, layer in built.items():
        for key, parameter in layer.conv.named_parameters():
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, case.computed(f"grad.{name}.{key}"), atol=1e-4, rtol=1e-5)


def test_a_hole_shrinks_and_its_colours_do_not_matter() -> None:
    torch.manual_seed(0)
    layer, known = PartialConv2d(3, 2, 3, padding=1), torch.ones(1, 1, 9, 9)
    known[..., 2:7, 2:7] = 0
    x = torch.randn(1, 3, 9, 9)
    first, seen = layer(x, known)
    assert int((seen == 0).sum()) == 9
    other, _ = layer(torch.where(known > 0, x, torch.randn_like(x)), known)
    assert torch.equal(first, other) and not first[:, :, 3:6, 3:6].any()
    torch.nn.init.constant_(layer.conv.weight, 0.1)  # a mean, which of a constant image is one
    ones = layer(torch.ones_like(x), known)[0]
    torch.testing.assert_close(ones[0, :, 2, 2], ones[0, :, 8, 8])


def test_losses_are_those_of_naoto0804() -> None:
    case = read_golden(GOLDEN / "partialconv/inpainting_loss")
    offsets = {"enc_1": 0, "enc_2": 5, "enc_3": 10}  # where a stage begins in VGG
    state = {
        f"features.{int(n) + offsets[stage]}.{part}": value
        for key, value in case.state.items()
        for _, stage, n, part in [key.split(".")]
    }
    features = PooledFeatures()
    features.load(state)
    found, truth = case.given("output").requires_grad_(), case.given("gt")
    known = case.given("mask")[:, :1]
    losses = pixel_losses(found, truth, known) | feature_losses(found, truth, known, features)
    names = {"hole": "hole", "valid": "valid", "variation": "tv", "perceptual": "prc", "style": "style"}
    for ours, theirs in names.items():
        torch.testing.assert_close(losses[ours], case.computed(theirs), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gram(case.given("output")), case.computed("gram"), atol=1e-5, rtol=0)
    weights = Inpainting(InpaintingSettings()).weights
    total = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
    torch.testing.assert_close(total, case.computed("total"), atol=1e-5, rtol=1e-5)
    torch.autograd.backward(total)
    wanted = case.computed("grad_output")
    assert found.grad is not None
    torch.testing.assert_close(found.grad, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=0)


def test_features_are_compared_as_nvidia_does() -> None:
    case = read_golden(GOLDEN / "partialconv/vgg_loss")
    features = PooledFeatures()
    features.load({f"features.{key.split('.', 2)[2]}": value for key, value in case.state.items()})
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    maps = (features((case.given(name) - mean) / std) for name in ("output", "target"))
    pairs = list(zip(*maps, strict=True))
    torch.testing.assert_close(0.05 * perceptual(pairs), case.computed("vgg"), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(120 * style(pairs), case.computed("style"), atol=1e-5, rtol=1e-5)


# Holes


def test_holes_follow_from_their_numbers_and_are_neither_nothing_nor_all() -> None:
    numbers = uniforms(3, 5, np.arange(200))[:, -NUMBERS:]
    for name, make in HOLES.items():
        holes = np.stack([make(32, row, 0.3) for row in numbers])
        shares = holes.mean((1, 2))
        assert shares.min() > 0 and shares.max() < 0.7, name
        assert np.array_equal(holes[7], make(32, numbers[7], 0.3)), name
        assert name == "centre" or np.abs(shares - 0.3).mean() < 0.12, (name, shares)
    cut = cut_hole(np.full((32, 32, 3), 9, np.uint8), holes[0])
    assert set(np.unique(cut[..., 3])) == {0, 255} and not cut[..., :3][cut[..., 3] == 0].any()


def test_spreading_fills_with_means_of_what_is_near() -> None:
    given = torch.zeros(4, 13, 9, dtype=torch.uint8)
    given[:3, :, :4], given[:3, :, 5:], given[3, :, :4], given[3, :, 5:] = 10, 30, 255, 255
    found = spread(given)
    assert torch.equal(found[:, given[3] > 0], given[:3, given[3] > 0])
    assert bool(((found[:, :, 4] >= 10) & (found[:, :, 4] <= 30)).all())


# Training


def test_a_run_fills_better_with_every_pixel_that_it_knows_kept(run: Path, pictures: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())["test"]
    assert set(metrics) == {"l1", "psnr", "spread_l1", "spread_psnr"}
    found = evaluate(run, str(pictures), "test")
    assert found["test"] == pytest.approx(metrics, abs=1e-4)
    page = (run / "report.html").read_text()
    for words in ("PSNR in the holes", "Spreading", "absolute difference in the hole", "Right: the truth", "step 8"):
        assert words in page, words


def test_stopped_and_resumed_ends_in_the_same_bits(run: Path, pictures: Path, tmp_path: Path) -> None:
    settings = {**SMALL, **SPLIT, "architecture": PCONV}
    with stopped_after(3, 8):
        train("pconv_unet_nano", str(pictures), tmp_path, **settings)
    train("pconv_unet_nano", str(pictures), tmp_path, **settings)
    for file in ("model/model.safetensors", "evaluation/images.safetensors"):
        one, two = (load_file(folder / file) for folder in (run, tmp_path))
        assert all(torch.equal(one[name], two[name]) for name in one), file


def test_losses_of_features_with_norms_that_stand_still(pictures: Path, tmp_path: Path) -> None:
    """They need weights, of which what is wrong is said."""
    settings = {**SMALL, **SPLIT, "architecture": PCONV, "max_steps": 1}
    file = tmp_path / "vgg16.safetensors"
    settings |= {"inpainting.vgg": str(file), "inpainting.frozen_norms": True}
    save_file({"classifier.weight": torch.zeros(1)}, file)
    with pytest.raises(OrchardError, match=r"vgg16.safetensors: no tensor 'features.0.weight'; expected torchvision's"):
        train("pconv_unet_nano", str(pictures), tmp_path / "1", **settings)
    features = iter(PooledFeatures().state_dict().values())
    places = (0, 2, 5, 7, 10, 12, 14)  # of convolutions among VGG's layers
    save_file({f"features.{n}.{part}": next(features) for n in places for part in ("weight", "bias")}, file)
    train("pconv_unet_nano", str(pictures), tmp_path / "2", **settings)
    assert "style_loss" in (tmp_path / "2/log.csv").read_text().splitlines()[0]
    state = load_file(tmp_path / "2/model/model.safetensors")
    assert not state["down.1.norm.running_mean"].any() and state["up.1.norm.running_mean"].any()
    assert bool((state["down.1.norm.weight"] == 1).all())


def test_what_cannot_be_learned_from_is_said_in_one_line(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(OrchardError, match=r"there is no picture in .*empty; expected pictures, such as"):
        train("pconv_unet_nano", str(tmp_path / "empty"), tmp_path / "1", **SMALL)
    with pytest.raises(UsageError, match=r"setting 'direction': what is given is made of the pictures; leave it out"):
        train("pconv_unet_nano", str(pictures), tmp_path / "2", direction="BtoA", architecture=PCONV, **SMALL)
    with pytest.raises(UsageError, match=r"image_size is 24, expected a multiple of 32"):
        train("pconv_unet_nano", str(pictures), tmp_path / "3", **SMALL | {"image_size": 24})
    settings = SMALL | {"image_size": 32, "batch_size": 1, "architecture": CONTEXT | {"overlap": 2}}
    with pytest.raises(UsageError, match=r"context_encoder_nano has norms over single pixels, and needs 2 pictures"):
        train("context_encoder_nano", str(pictures), tmp_path / "4", **settings)
    model: Any = create_model("pconv_unet_nano", image_size=16, **PCONV)
    with pytest.raises(ValueError, match=r"expected sides that are multiples of 8, got \(1, 4, 16, 12\)"):
        model.translate(torch.zeros(1, 4, 16, 12), "AtoB")


def test_data_are_checked_as_they_are_learned_from(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert orchard("data", "check", pictures, "--model", "pconv_unet_nano", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    counts = {name: split["pictures"] for name, split in found["counts"].items()}
    assert sum(counts.values()) == 14 and counts["test"] == 4
    assert found["facts"]["width, pixels (smallest, median, largest)"][0] == 24


# Answers


def picture(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    rows = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    return Image.fromarray(rows).convert(mode)


def mask(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    marked = Image.new("L", size)
    marked.paste(255, box)
    return marked


@pytest.mark.parametrize(("mode", "keep"), [("RGB", False), ("RGB", True), ("L", False)])
def test_known_pixels_come_out_as_they_are(run: Path, mode: str, keep: bool) -> None:
    fill, given = pipeline(run, keep_size=keep), picture((45, 31), mode)
    hole = mask((45, 31), (12, 9, 20, 17))
    found = fill(given, mask=hole)
    assert found.size == given.size and found.mode == mode
    a, b, inside = np.asarray(found), np.asarray(given), np.asarray(hole) > 0
    assert np.array_equal(a[~inside], b[~inside]) and not np.array_equal(a[inside], b[inside])
    hidden = given.copy()
    hidden.paste(0, mask=hole)  # what is under the hole is not looked at
    assert np.array_equal(np.asarray(fill(hidden, mask=hole)), a)
    clear = given.convert("LA" if mode == "L" else "RGBA")
    clear.putalpha(Image.eval(hole, lambda level: 255 - level))
    assert np.array_equal(np.asarray(fill(clear)), a)


def test_files_and_masks_that_do_not_fit_are_answered_in_one_line(run: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "masks").mkdir()
    boxes = {"good": (3, 3, 9, 9), "none": (0, 0, 0, 0), "all": (0, 0, 30, 20)}
    for name, box in boxes.items():
        picture((30, 20)).save(tmp_path / f"in/{name}.png")
        mask((30, 20), box).save(tmp_path / f"masks/{name}.png")
    picture((30, 20)).save(tmp_path / "in/large.png")
    mask((31, 20), (3, 3, 9, 9)).save(tmp_path / "masks/large.png")
    options = {"out": tmp_path / "out", "mask": tmp_path / "masks"}
    found = {Path(one.item).stem: one for one in answer(run, [str(tmp_path / "in")], options)}  # type: ignore[attr-defined]
    said = {name: one.to_json().get("error") for name, one in found.items()}
    assert said == {
        "good": None,
        "none": "its mask marks no pixel, so there is nothing to fill; name a mask in white on black, as with --mask",
        "all": "all of it is to be filled, and nothing is known; leave some pixels out of the mask",
        "large": "its mask is 31x20 pixels, the picture 30x20; both must be of one size",
    }
    with Image.open(tmp_path / "out/good_translated.png") as image:
        assert image.size == (30, 20) and image.mode == "RGB"
    with pytest.raises(OrchardError, match=r"it has no transparent pixel, so there is nothing to fill; name a mask"):
        pipeline(run)(picture((30, 20)))


def test_an_export_fills_as_the_model_does(run: Path) -> None:
    loaded = load(run)
    (entry,) = entries(loaded)
    given: Tensor = entry.inputs(2, torch.Generator().manual_seed(0))["images"]
    with torch.no_grad():
        found = entry.module(given)
    assert found.shape == (2, 3, 16, 16)
    assert torch.equal(given[:, :3].where(given[:, 3:] > 0, found), found)


# Context encoders


CONTEXT: dict[str, Any] = {"width": 4, "bottleneck": 8, "discriminator_width": 4}


def test_context_encoders_have_the_official_sizes() -> None:
    with torch.device("meta"):
        model, anywhere = (create_model(f"context_encoder{name}").eval() for name in ("", "_random"))
    parts = (cast(Any, model).generator, cast(Any, model).discriminator)
    assert [sum(p.numel() for p in part.parameters()) for part in parts] == [71_124_544, 2_765_568]
    images = torch.empty(1, 3, 128, 128, device="meta")
    assert model(images).shape == (1, 3, 64, 64) and anywhere(images).shape == (1, 3, 128, 128)
    assert parts[1](cast(Any, model).part(images)).shape == (1, 1, 1, 1)
    for size, said in ((96, "a power of two from 32 on"), (16, "a power of two")):
        with pytest.raises(UsageError, match=f"image_size is {size}, expected {said}"):
            create_model("context_encoder", image_size=size)
    with pytest.raises(UsageError, match=r"overlap is 4, expected 0 to 3 at image_size 32"):
        create_model("context_encoder", image_size=32)


def test_the_losses_of_context_encoders_by_hand() -> None:
    torch.manual_seed(0)
    model: Any = create_model("context_encoder_nano", image_size=32, **CONTEXT).train()
    learner = GenerationLearner(model, (3, 32, 32))
    known = torch.ones(2, 1, 32, 32)
    known[..., 10:22, 10:22] = -1
    batch = SidesBatch(torch.cat([torch.rand(2, 3, 32, 32), known], 1), torch.rand(2, 3, 32, 32), torch.arange(2))
    objective = AdversarialInpainting(AdversarialInpaintingSettings())
    drawn = model.generator(model.blanked(batch.b, known))
    assert drawn.shape == (2, 3, 16, 16)
    truth = batch.b[:, :, 8:24, 8:24]
    real, fake = model.discriminator(truth), model.discriminator(drawn)
    entropy, ones = torch.nn.functional.binary_cross_entropy_with_logits, torch.ones_like(real)
    loss, _ = objective.discriminator_loss(learner, batch, 0)
    torch.testing.assert_close(loss, entropy(real, ones) + entropy(fake, 0 * ones))
    weights = torch.full((16, 16), 10.0)
    weights[2:14, 2:14] = 1
    pixels = ((drawn - truth).square() * weights).mean()
    loss, parts = objective.generator_loss(learner, batch, 0)
    torch.testing.assert_close(loss, 0.999 * pixels + 0.001 * entropy(fake, ones))
    torch.testing.assert_close(parts["pixel_loss"], pixels)


@pytest.mark.parametrize("whole", [False, True])
def test_a_context_encoder_fills_pictures_of_any_size(whole: bool, pictures: Path, tmp_path: Path) -> None:
    """With a learning rate of its own for each network; a hole at the border, larger than the network's middle."""
    architecture = {**CONTEXT, "whole": whole, "overlap": 0 if whole else 2}
    settings = SMALL | {"image_size": 32, "max_steps": 3, "architecture": architecture}
    metrics = train("context_encoder_nano", str(pictures), tmp_path / "run", **settings, **SPLIT)
    assert set(metrics["test"]) == {"l1", "psnr", "spread_l1", "spread_psnr"}
    assert "adversarial_loss" in (tmp_path / "run/log.csv").read_text().splitlines()[0]
    fill = pipeline(tmp_path / "run")
    for size, box in (((70, 50), (0, 5, 40, 45)), ((20, 17), (5, 5, 9, 9))):
        given, hole = picture(size), mask(size, box)
        a, b, inside = np.asarray(fill(given, mask=hole)), np.asarray(given), np.asarray(hole) > 0
        assert np.array_equal(a[~inside], b[~inside]) and not np.array_equal(a[inside], b[inside])


def test_official_files_are_imported(tmp_path: Path) -> None:
    model = create_model("pconv_unet_nano", image_size=16, window=False, **PCONV)
    save_file(
        export_official(model, "naoto0804") | {"enc_1.conv.mask_conv.weight": torch.ones(4, 3, 7, 7)},
        tmp_path / "1000000.safetensors",
    )
    overrides = {"image_size": 16, **PCONV}
    import_checkpoint("pconv_unet_nano", str(tmp_path / "1000000.safetensors"), tmp_path / "1", overrides=overrides)
    found: Any = load(tmp_path / "1").model
    assert not found.config.window
    assert all(torch.equal(one, found.state_dict()[name]) for name, one in model.state_dict().items())

    overrides = {"image_size": 32, "overlap": 2, **CONTEXT}
    model = create_model("context_encoder_nano", **overrides)
    for network, name in (("netG", "netG_streetview"), ("netD", "netlocalD")):
        tensors = export_official(model, "boyuanjiang").items()
        own = {key.partition(".")[2]: one for key, one in tensors if key.startswith(network)}
        save_file(own, tmp_path / f"{name}.safetensors")
    files = [tmp_path / f"{name}.safetensors" for name in ("netG_streetview", "netlocalD")]
    import_checkpoint(
        "context_encoder_nano", str(files[0]), tmp_path / "2", overrides=overrides, files=[files[1]]
    )  # fmt: skip
    state = load(tmp_path / "2").model.state_dict()
    assert all(torch.equal(one, state[name]) for name, one in model.state_dict().items())
