"""Image restoration: noise, what official files hold, pieces without seams, runs, pairs, answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms.functional import pil_to_tensor

from orchard.app.evaluate import evaluate
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.data.resolutions import Resolutions, open_resolutions
from orchard.data.settings import CaptionSource
from orchard.errors import UsageError
from orchard.inference.loading import load
from orchard.models import create_model, landmark_of
from orchard.tasks.image_restoration.answer import answer
from orchard.tasks.image_restoration.degradation import Noise, read_degradation
from orchard.tasks.image_restoration.job import entries
from orchard.tasks.image_restoration.metrics import examples, measure
from orchard.tasks.image_restoration.restoring import Restorer, in_channels_of
from orchard.tasks.image_restoration.settings import Options
from orchard.tasks.super_resolution.metrics import psnr
from orchard.tasks.super_resolution.pipeline import read_image
from orchard.weights.official import load_official, read_official, weights_of

SMALL: dict[str, Any] = {
    "architecture": {"dilations": (1, 1, 1), "width": 8},
    "patch": 12,
    "patches_per_image": 8,
    "batch_size": 4,
    "max_steps": 6,
    "log_every": 2,
    "data.workers": 0,
}


def picture(seed: int, width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Smooth colours with edges: random fields, enlarged."""
    fields = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return Image.fromarray(fields).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for n in range(10):
        picture(n, 40 + n, 36 + 3 * n, "L" if n == 3 else "RGB").save(root / f"{n}.png")
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("runs") / "run"
    return path, train("dncnn_nano", str(folder), path, degradation="noise:0-55", **SMALL)


# Noise


def test_noise_is_said_in_a_word() -> None:
    assert read_degradation("noise:25") == Noise(25, 25) and read_degradation("noise:0-55.5") == Noise(0, 55.5)
    assert Noise(0, 55).levels == (15, 25, 50) and Noise(20, 30).levels == (25,) and Noise(5, 10).levels == (10,)
    for wrong in ("noise", "rain", "noise:0", "noise:30-20", "noise:300", "noise:-1"):
        with pytest.raises(ValueError, match=r"^expected noise:25 or noise:0-55"):
            read_degradation(wrong)
    with pytest.raises(UsageError, match=r"setting 'degradation': .*expected noise:25 or noise:0-55"):
        train("dncnn_nano", "somewhere", degradation="rain")


def test_noise_is_of_its_level_and_follows_from_the_index(folder: Path) -> None:
    split = open_resolutions(str(folder), CaptionSource(source=str(folder)), (1,)).splits["train"]
    noise = Noise(0, 55)
    first, again = (list(examples(split, 1, 3, noise)) for _ in range(2))
    assert [sigma for *_, sigma in first] == [15, 25, 50]
    assert all(torch.equal(one[0], two[0]) for one, two in zip(first, again, strict=True))
    for given, truth, sigma in first:
        difference = given - truth
        assert sigma and float(difference.std()) == pytest.approx(sigma, rel=0.05) and given.min() < 0
    (other, *_), *_ = examples(split, 2, 3, noise)
    assert not torch.equal(other[0, :5, :5], first[0][0][0, :5, :5])
    drawn = noise.draw(2000, torch.device("cpu"))
    assert 0 <= drawn.min() < 2 and 53 < drawn.max() <= 55
    assert float(drawn.mean()) == pytest.approx(27.5, abs=1.5)


# Networks


def test_running_averages_move_as_official_ones(golden: Path) -> None:
    """KAIR's by 0.9, SaoYan's by 0.1."""
    saoyan = {"eps": 1e-5, "momentum": 0.1, "bias": False}
    cases = {"kair_br_a": ("kair", 5, 12, {}), "saoyan_a": ("saoyan", 6, 10, saoyan)}
    for case, (source, depth, width, settings) in cases.items():
        at = golden / "dncnn" / case
        stored = load_file(at / "io.safetensors")
        model: Any = create_model("dncnn_s", dilations=(1,) * depth, width=width, **settings)
        load_official(model, weights_of(landmark_of("dncnn_s"), source, load_file(at / "params.safetensors")), source)
        model.train()(stored["in.noisy"])
        (wanted,) = (tensor for name, tensor in stored.items() if name.startswith("out.train_after."))
        torch.testing.assert_close(model.layers[0].norm.running_var, wanted)


def test_psnr_is_saoyan_s(golden: Path) -> None:
    stored = load_file(golden / "dncnn" / "saoyan_a" / "io.safetensors")
    found = [psnr(255 * a, 255 * b) for a, b in zip(stored["out.denoised"], stored["in.clean"], strict=True)]
    assert np.mean(found) == pytest.approx(float(stored["out.psnr"]), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("dncnn_s", "kair_dncnn_gray"),
        ("dncnn_s", "kair_dncnn_released_merged"),
        ("fdncnn", "kair_fdncnn_gray"),
        ("ircnn", "kair_ircnn"),
        ("dncnn_s", "saoyan"),
    ],
)
def test_official_files_are_read_by_what_they_hold(name: str, key: str, golden: Path) -> None:
    """Whether there are norms and biases is read off the tensors."""
    keys = json.loads((golden / "dncnn" / "official_checkpoint_keys.json").read_text())
    key = next(one for one in keys if one.startswith(key))
    tensors = {name: torch.ones(shape) for name, shape in keys[key].items()}
    found = read_official(name, tensors, None, {}, "a.pth")
    config: Any = found.model.config
    assert not found.ignored and config.norm == ("batch" if any("running" in name for name in tensors) else "none")
    assert config.bias is (key[:6] != "saoyan") and config.eps == (1e-5 if key[:6] == "saoyan" else 1e-4)


@pytest.mark.parametrize(
    ("name", "settings", "modes"),
    [
        ("dncnn_nano", {}, ("L", "RGB")),
        ("ircnn_nano", {"width": 8}, ("L",)),
        ("fdncnn_color", {"dilations": (1, 1, 1), "width": 8}, ("L", "RGB")),
    ],
)
def test_pieces_are_what_the_whole_gives(name: str, settings: dict[str, Any], modes: tuple[str, ...]) -> None:
    """Of grey and of colour images, and with one pixel less around them they would not be."""
    torch.manual_seed(0)
    model: Any = create_model(name, **settings).eval()
    with torch.no_grad():
        model.tail.weight *= 10
    sigma = 25.0 if model.noise_map else None
    for mode in modes:
        image = pil_to_tensor(picture(1, 61, 45, mode))
        whole = Restorer(model, tile=10**6)(image, sigma)
        assert whole.shape == image.shape and whole.dtype == torch.uint8
        for tile in (16, 23):
            assert (Restorer(model, tile=tile)(image, sigma).int() - whole.int()).abs().max() <= 1  # of rounding
    radius = model.receptive_radius
    images = torch.rand(1, model.channels + model.noise_map, 2 * radius + 9, 2 * radius + 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(images)[..., radius + 4, radius + 4].square().sum(), images)
    rows = gradient.abs().amax((0, 1, 3)).nonzero().flatten() - radius - 4
    assert int(rows.max()) == radius and int(rows.min()) == -radius


def test_channels_are_restored_one_by_one_and_grey_is_rounded() -> None:
    torch.manual_seed(0)
    grey = create_model("dncnn_nano", dilations=(1, 1, 1), width=8).eval()
    image = pil_to_tensor(picture(0, 20, 18))
    each = torch.cat([Restorer(grey)(channel[None]) for channel in image])
    assert torch.equal(Restorer(grey)(image), each)
    pixels = pil_to_tensor(picture(0, 20, 18, "L").convert("RGB"))[None]
    assert torch.equal(in_channels_of(pixels, grey), pixels[:, :1].float())


def test_a_noise_map_says_how_much_is_taken_away() -> None:
    model: Any = create_model("fdncnn", dilations=(1, 1, 1), width=8)
    images = torch.rand(2, 1, 9, 9)
    found = model.restore(images, torch.tensor([0.1, 0.2]))
    mapped = torch.cat([images, torch.tensor([0.1, 0.2]).view(2, 1, 1, 1).expand(2, 1, 9, 9)], 1)
    assert torch.equal(found, model(mapped))
    with pytest.raises(ValueError, match="expected sigma"):
        model.restore(images)


# Runs


def test_a_run_and_its_report(run: tuple[Path, dict[str, Any]]) -> None:
    path, metrics = run
    test = metrics["test"]
    assert metrics["task"] == "image-restoration"
    assert test["psnr"] == pytest.approx((test["psnr_15"] + test["psnr_25"] + test["psnr_50"]) / 3)
    assert test["psnr_15"] > test["psnr_50"] and 18 < test["degraded_psnr"] < 21
    page = (path / "report.html").read_text()
    assert "with noise of 25" in page and page.count("<figure>") >= 2


def test_a_run_goes_on_as_if_it_had_not_stopped(run: tuple[Path, dict[str, Any]], folder: Path, tmp_path: Path) -> None:
    train("dncnn_nano", str(folder), tmp_path / "run", degradation="noise:0-55", **SMALL | {"max_steps": 3})
    train("dncnn_nano", str(folder), tmp_path / "run", degradation="noise:0-55", **SMALL)
    weights = [load_file(at / "model" / "model.safetensors") for at in (run[0], tmp_path / "run")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_evaluation_is_the_same_each_time_and_of_any_noise(run: tuple[Path, dict[str, Any]], folder: Path) -> None:
    first, again = (evaluate(run[0], str(folder))["test"] for _ in range(2))
    assert first == again and "psnr_50" in first
    other = evaluate(run[0], str(folder), settings={"evaluation.degradation": "noise:40"})["test"]
    assert other["degraded_psnr"] == pytest.approx(20 * np.log10(255 / 40), abs=0.2) and "psnr_50" not in other
    with pytest.raises(UsageError, match=r"setting 'evaluation\.degradation'"):
        evaluate(run[0], str(folder), settings={"evaluation.degradation": "snow"})


def test_pairs_are_learned_from_as_they_are(tmp_path: Path) -> None:
    for name in ("HR", "LRx1"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for n in range(8):
        picture(n, 40, 32).save(tmp_path / "data" / "HR" / f"{n}.png")
        Image.new("RGB", (40, 32), (10 * n, 0, 0)).save(tmp_path / "data" / "LRx1" / f"{n}.png")
    source = str(tmp_path / "data")
    metrics = train("cdncnn_b", source, tmp_path / "run", **SMALL)
    assert metrics["test"]["degraded_psnr"] < 15 and "degradation" not in load(tmp_path / "run").facts
    assert "stored in pairs" in (tmp_path / "run" / "report.html").read_text()
    assert evaluate(tmp_path / "run", source)["test"]["degraded_psnr"] < 15
    plain = tmp_path / "plain"
    plain.mkdir()
    picture(0, 40, 32).save(plain / "0.png")
    with pytest.raises(UsageError, match=r"does not say what noise .* --set evaluation\.degradation=noise:25"):
        evaluate(tmp_path / "run", str(plain))
    with pytest.raises(UsageError, match="the data are pairs"):
        train("fdncnn", source, tmp_path / "told", **SMALL)


def test_a_network_that_is_told_learns_and_answers(folder: Path, tmp_path: Path) -> None:
    train("fdncnn", str(folder), tmp_path / "run", degradation="noise:0-55", **SMALL)
    with pytest.raises(UsageError, match="must be told how strong the noise is"):
        pipeline(tmp_path / "run")
    assert pipeline(tmp_path / "run", sigma=25)(picture(0, 20, 10)).size == (20, 10)
    (entry,) = entries(load(tmp_path / "run"))
    assert entry.inputs(1, torch.Generator())["images"].shape[1] == 2


def test_a_network_that_does_nothing_is_as_good_as_what_it_is_given() -> None:
    """So that a gain is the network's."""

    class Still(torch.nn.Module):
        channels, noise_map, value_range, receptive_radius = 3, False, (-1.0, 1.0), 0

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def restore(self, images: torch.Tensor, sigma: torch.Tensor | None = None) -> torch.Tensor:
            return images

    class Pictures:
        def __len__(self) -> int:
            return 1

        def open(self, index: int) -> Image.Image:
            return picture(index, 40, 30).point(lambda value: 100 + value // 8)  # nothing is cut

    split = Resolutions(Pictures())  # type: ignore[arg-type]
    found, given = (measure(Still(), split, [0], Noise(10, 10), degraded=flag) for flag in (False, True))
    torch.testing.assert_close(found, given, atol=0.02, rtol=0)  # of rounding


# Answers


def test_answers_are_files_beside_the_given_and_the_truth(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    for name in ("given", "clean"):
        (tmp_path / name).mkdir()
    clean = picture(5, 50, 40)
    clean.save(tmp_path / "clean" / "cat.png")
    clean.point(lambda value: value // 2).save(tmp_path / "given" / "cat.png")
    (tmp_path / "given" / "bad.png").write_bytes(b"no image")
    options = Options(out=tmp_path / "out", truth=tmp_path / "clean")
    found = {Path(one.item).stem: one for one in answer(run[0], [str(tmp_path / "given")], options, print)}
    cat = found["cat"]
    assert "not a picture" in found["bad"].error
    assert cat.size == Image.open(tmp_path / "out" / "cat_restored.png").size == (50, 40)
    assert Image.open(cat.compared).size == (158, 40)
    assert 5 < dict(cat.metrics)["degraded_psnr"] < 15 and json.dumps(cat.to_json())
    assert len(cat.columns()) == len(cat.cells()) == len(found["bad"].cells())
    with pytest.raises(UsageError, match=r"_restored\.png is there already"):
        list(answer(run[0], [str(tmp_path / "given")], options, print))
    with pytest.raises(UsageError, match="option 'sigma' is for models with a noise map"):
        pipeline(run[0], sigma=25)


@pytest.mark.parametrize("name", ["dncnn_nano", "cdncnn_b"])
def test_files_of_every_mode_and_size_are_restored(name: str, tmp_path: Path) -> None:
    """By grey and colour networks, in the mode of what is seen: what is transparent is white, 16 bits become 8."""
    torch.manual_seed(0)
    restorer = Restorer(create_model(name, dilations=(1, 1, 1), width=8).eval())
    grey, colours = picture(2, 13, 9, "L"), picture(2, 13, 9)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    clear = colours.copy()
    clear.putalpha(Image.new("L", colours.size, 0))
    white = Image.new("RGB", colours.size, "white")
    tiny = picture(3, 8, 8).crop((0, 0, 1, 2))
    cases = {"grey": (grey, grey), "deep": (deep, grey), "alpha": (clear, white), "tiny": (tiny, tiny)}
    for key, (stored, seen) in cases.items():
        stored.save(tmp_path / f"{key}.png")
        read = read_image(tmp_path / f"{key}.png")
        assert isinstance(read, Image.Image) and (read.mode, read.size) == (seen.mode, seen.size), key
        assert torch.equal(restorer(pil_to_tensor(read)), restorer(pil_to_tensor(seen))), key
        assert restorer(pil_to_tensor(read)).shape == pil_to_tensor(seen).shape, key
