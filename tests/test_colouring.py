"""Colours: Lab, bins and their weights against stored tensors, training from any pictures in colour, answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from stopping import stopped_after

from orchard.app.evaluate import evaluate
from orchard.app.importing import import_checkpoint
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.nn.colour_bins import annealed_mean, class_weights, colour_bins, encode
from orchard.nn.lab import lab_to_rgb, rgb_to_lab
from orchard.tasks.image_to_image.colouring import auc, colour_loss, places
from orchard.tasks.image_to_image.painting import to_grey
from orchard.weights.golden import GOLDEN, read_golden
from orchard.weights.official import export_official

CIC: dict[str, Any] = {"widths": [4, 6, 8, 8, 6]}
SMALL: dict[str, Any] = {
    "image_size": 16, "batch_size": 2, "max_steps": 8, "log_every": 1, "evaluate_steps": 4, "data.workers": 0,
    "augmentation.enlarge": 1.25, "augmentation.flip": True, "data.validation_fraction": 0.3,
}  # fmt: skip


def fields(seed: int, size: tuple[int, int]) -> Image.Image:
    colours = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Colour fields, and two grey ones among those of training."""
    root = tmp_path_factory.mktemp("colours")
    for n in range(16):
        path = root / f"{'test' if n > 11 else 'train'}/{n}.png"
        path.parent.mkdir(exist_ok=True)
        fields(n, (24 + n, 20)).convert("L" if n < 2 else "RGB").save(path)
    return root


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("painting") / "run"
    train("cic_nano", str(pictures), path, architecture=CIC, **SMALL)
    return path


# Against official code


def test_lab_is_that_of_the_official_code_and_comes_back() -> None:
    case = read_golden(GOLDEN / "colorization/lab_util")
    rgb = case.given("rgb")
    lab = rgb_to_lab(rgb)
    torch.testing.assert_close(lab, case.computed("lab_raw"), atol=2e-4, rtol=0)  # values up to 100
    torch.testing.assert_close(lab_to_rgb(lab), rgb, atol=2e-5, rtol=0)
    levels = case.given("rgb8").permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(rgb_to_lab(levels)[:, :1], case.computed("release_L_orig"), atol=2e-4, rtol=0)


def test_a_picture_is_put_together_as_the_official_code_does() -> None:
    case = read_golden(GOLDEN / "colorization/lab_util")
    lightness, ab = case.computed("release_L_orig"), case.computed("in_out_ab_used_for_release_post")
    ab = torch.nn.functional.interpolate(ab, lightness.shape[2:], mode="bilinear")
    found = lab_to_rgb(torch.cat([lightness, ab], 1))[0].permute(1, 2, 0)
    torch.testing.assert_close(found, case.computed("release_post"), atol=2e-4, rtol=0)


def test_bins_encoding_and_weights_are_the_official_ones() -> None:
    case = read_golden(GOLDEN / "colorization/ab_bins")
    bins = colour_bins()
    assert torch.equal(bins.double(), case.given("pts_in_hull"))
    ab, clear = case.given("ab").float(), case.computed("no_tie").bool().flatten()
    found = encode(ab.permute(0, 2, 3, 1).reshape(-1, 2), bins)
    wanted = case.computed("encoded").permute(0, 2, 3, 1).reshape(-1, len(bins)).float()
    assert clear.sum() > 10
    torch.testing.assert_close(found[clear], wanted[clear], atol=1e-5, rtol=0)
    weights = class_weights(case.given("prior_probs").float())
    torch.testing.assert_close(weights, case.computed("prior_factor_alpha1.0_gamma0.5").float(), atol=1e-5, rtol=1e-5)
    boost = case.computed("boost_alpha1.0_gamma0.5").flatten().float()
    torch.testing.assert_close(weights[found.argmax(1)][clear], boost[clear], atol=1e-5, rtol=1e-5)


def test_the_annealed_mean_goes_from_the_mean_to_the_likeliest() -> None:
    torch.manual_seed(0)
    logits, bins = torch.randn(1, 313, 2, 2), colour_bins()
    mean = (logits.softmax(1)[:, :, None] * bins[:, :, None, None]).sum(1)
    torch.testing.assert_close(annealed_mean(logits, bins, 1.0), mean, atol=1e-4, rtol=0)
    likeliest = bins[logits.argmax(1)].permute(0, 3, 1, 2)
    torch.testing.assert_close(annealed_mean(logits, bins, 1e-3), likeliest, atol=1e-2, rtol=0)


def test_the_loss_by_hand_and_grey_images_without_a_part_in_it() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 313, 4, 4, requires_grad=True)
    lab = rgb_to_lab(torch.rand(2, 3, 16, 16))
    lab[1, 1:] *= 0.01
    weights = torch.rand(313) + 0.5
    loss, entropy = colour_loss(logits, lab, weights)
    wanted = encode(places(lab), colour_bins()).view(2, 4, 4, 313)
    each = -(wanted * logits.permute(0, 2, 3, 1).log_softmax(-1)).sum(-1)
    torch.testing.assert_close(entropy, each.mean().detach())
    torch.testing.assert_close(loss, (each[0] * weights[wanted[0].argmax(-1)]).sum() / 32)
    torch.autograd.backward(loss)
    assert logits.grad is not None and logits.grad[0].any() and not logits.grad[1].any()


def test_the_area_under_the_curve_of_distances() -> None:
    truth = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = truth.roll(1, 1)
    assert auc(truth, truth) == 1
    distance = (rgb_to_lab(found / 255) - rgb_to_lab(truth / 255))[1:].norm(dim=0)
    by_hand = np.mean([float((distance <= t).float().mean()) for t in range(151)])
    assert auc(found, truth) == pytest.approx(by_hand, abs=1e-6)


# Training


def test_a_run_learns_from_coloured_pictures_and_says_what_it_left_out(
    run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = json.loads((run / "metrics.json").read_text())["test"]
    assert set(metrics) == {"l1", "psnr", "auc", "grey_l1", "grey_psnr", "grey_auc"}
    assert evaluate(run, str(pictures), "test")["test"] == pytest.approx(metrics, abs=1e-4)
    page = (run / "report.html").read_text()
    for words in ("area under the curve of distances", "grey, and teaches no colours", "Right: the truth", "step 8"):
        assert words in page or words in (run / "run.json").read_text(), words
    checkpoint = next((run / "checkpoints").glob("*/model.safetensors"))
    prior = load_file(checkpoint)["prior"]
    assert float(prior.sum()) == pytest.approx(1, abs=1e-5) and bool((prior >= 0).all())


def test_stopped_and_resumed_ends_in_the_same_bits(run: Path, pictures: Path, tmp_path: Path) -> None:
    with stopped_after(3, 8):
        train("cic_nano", str(pictures), tmp_path, architecture=CIC, **SMALL)
    train("cic_nano", str(pictures), tmp_path, architecture=CIC, **SMALL)
    one, two = (load_file(folder / "model/model.safetensors") for folder in (run, tmp_path))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_has_no_colours_is_said_in_one_line(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "grey").mkdir()
    for n in range(3):
        fields(n, (20, 20)).convert("L").save(tmp_path / f"grey/{n}.png")
    with pytest.raises(OrchardError, match=r"all 3 pictures in .*grey are grey; expected some in colour to learn from"):
        train("cic_nano", str(tmp_path / "grey"), tmp_path / "1", **SMALL)
    with pytest.raises(UsageError, match=r"image_size is 20, expected a multiple of 8"):
        train("cic_nano", str(pictures), tmp_path / "2", **SMALL | {"image_size": 20})
    with pytest.raises(UsageError, match=r"temperature is 0.0, expected a number above 0"):
        create_model("cic_nano", temperature=0.0)


# Answers


@pytest.mark.parametrize("keep", [False, True])
def test_any_picture_keeps_its_size_and_its_lightness(run: Path, keep: bool) -> None:
    paint = pipeline(run, keep_size=keep)
    pale = Image.blend(fields(3, (45, 31)), Image.new("RGB", (45, 31), "grey"), 0.8)
    for given in (pale, pale.convert("L")):
        found = paint(given)
        assert found.mode == "RGB" and found.size == (45, 31)
        rgb, grey = (torch.from_numpy(np.array(x.convert("RGB"))).permute(2, 0, 1) for x in (found, given))
        lightness = [rgb_to_lab(x / 255)[0] for x in (rgb, grey)]
        inside = ((rgb > 0) & (rgb < 255)).all(0)  # colours that a screen has, of which nothing was cut
        assert bool(inside.any()) and float((lightness[0] - lightness[1]).abs()[inside].max()) < 0.8
    with pytest.raises(UsageError, match=r"option 'mask' is for models that fill holes; this one takes pictures alone"):
        paint(pale, mask=pale)


def test_grey_of_the_same_lightness() -> None:
    image = torch.randint(0, 256, (3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    grey = to_grey(image)
    lightness = [rgb_to_lab(x.expand(3, -1, -1) / 255)[0] for x in (image, grey)]
    torch.testing.assert_close(lightness[0], lightness[1], atol=0.5, rtol=0)


def test_official_files_are_imported_with_their_colours_and_temperature(tmp_path: Path) -> None:
    model = create_model("cic_nano", image_size=16, temperature=1.0, **CIC)
    model.get_buffer("bins").mul_(0.9)
    save_file(export_official(model, "richzhang"), tmp_path / "release.safetensors")
    import_checkpoint("cic_nano", str(tmp_path / "release.safetensors"), tmp_path / "out", overrides={"image_size": 16})
    found: Any = load(tmp_path / "out").model
    assert found.config.temperature == 1 and list(found.config.widths) == CIC["widths"]
    assert all(torch.equal(one, found.state_dict()[name]) for name, one in model.state_dict().items())
    assert pipeline(tmp_path / "out")(fields(0, (20, 20)).convert("L")).size == (20, 20)
