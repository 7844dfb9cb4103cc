"""Super-resolution: metrics as published, low resolution as MATLAB makes it, patches, pieces without seams, runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import orchard
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from orchard.app.evaluate import evaluate
from orchard.app.export import export
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.data.patches import PatchLoader, enlarge_part
from orchard.data.resolutions import check_resolutions, enlarge, open_resolutions, recognise, shrink
from orchard.data.settings import CaptionSource
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.tasks.super_resolution.answer import answer
from orchard.tasks.super_resolution.job import entries
from orchard.tasks.super_resolution.metrics import luma, psnr, shave, ssim
from orchard.tasks.super_resolution.settings import Options
from orchard.tasks.super_resolution.upscaling import Upscaler, from_network, to_network
from orchard.weights.official import export_official

SMALL: dict[str, Any] = {
    "architecture": {"blocks": 1, "width": 8, "scale": 2},
    "patch": 8,
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
    """Ten images of unlike sizes, one of them grey; none but the first divides by 2."""
    root = tmp_path_factory.mktemp("images")
    for n in range(10):
        picture(n, 40 + n, 36 + 3 * n, "L" if n == 3 else "RGB").save(root / f"{n}.png")
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("runs") / "run"
    return path, train("edsr_nano", str(folder), path, **SMALL)


def pairs(root: Path, scale: int, sizes: list[tuple[int, int]]) -> Path:
    """A folder of pairs whose low resolution is nobody's bicubic: one plain colour."""
    for name in ("HR", f"LRx{scale}"):
        (root / name).mkdir(parents=True)
    for n, (width, height) in enumerate(sizes):
        picture(n, width, height).save(root / "HR" / f"{n}.png")
        low = Image.new("RGB", (width // scale, height // scale), (10 * n, 0, 0))
        low.save(root / f"LRx{scale}" / f"{n}.png")
    return root


def opened(source: Path, *scales: int, **settings: Any) -> Any:
    return open_resolutions(str(source), CaptionSource(source=str(source), **settings), scales)


# Metrics


@pytest.mark.parametrize("border", [0, 2, 3, 4])
def test_metrics_are_kair_s(golden: Path, border: int) -> None:
    """KAIR rounds the luma of 8-bit images as MATLAB does."""
    stored = load_file(golden / "sr_metrics" / "pictures_a" / "io.safetensors")
    a, b = (stored[f"in.img{n}"].permute(2, 0, 1).double() for n in (1, 2))
    torch.testing.assert_close(luma(a)[0] / 255, stored["out.y1_float"])
    for name, (one, two) in {"y": (luma(a).round(), luma(b).round()), "rgb": (a, b)}.items():
        one, two = shave(one, border), shave(two, border)
        assert psnr(one, two) == pytest.approx(float(stored[f"out.psnr_{name}_border{border}"]), abs=1e-9)
        assert ssim(one, two) == pytest.approx(float(stored[f"out.ssim_{name}_border{border}"]), abs=1e-9)
        assert ssim(one.float(), two.float()) == pytest.approx(ssim(one, two), abs=1e-5)


def test_psnr_is_edsr_s(golden: Path) -> None:
    """Of luma that is not rounded, and of RGB without a border of scale + 6; its weights have three decimals less."""
    stored = load_file(golden / "edsr" / "psnr" / "io.safetensors")
    found, truth = stored["out.quantized"][0], stored["in.hr"][0]
    for scale in (2, 3, 4):
        a, b = (shave(luma(x), scale) for x in (found, truth))
        assert psnr(a, b) == pytest.approx(float(stored[f"out.psnr_x{scale}_luma"]), abs=2e-3)
        a, b = (shave(x, scale + 6) for x in (found, truth))
        assert psnr(a, b) == pytest.approx(float(stored[f"out.psnr_x{scale}_rgb"]), abs=1e-5)


@pytest.mark.parametrize(("scale", "factor"), [(2, "0.500"), (3, "0.333"), (4, "0.250")])
def test_low_resolution_is_nearly_matlab_s(golden: Path, scale: int, factor: str) -> None:
    """That of `imresize`, to a level, but for the outermost pixels: there MATLAB mirrors and Pillow does not."""
    stored = load_file(golden / "sr_metrics" / "pictures_a" / "io.safetensors")
    image = Image.fromarray(stored["in.img1"].numpy())
    small = shrink(image, scale, (0, 0, image.width // scale, image.height // scale))
    matlab = (stored[f"out.imresize_{factor}"] * 255).round().clamp(0, 255)[: small.height, : small.width]
    inner = (torch.from_numpy(np.array(small)).float() - matlab)[2:-2, 2:-2]
    assert inner.abs().max() <= 1 and (inner == 0).float().mean() > 0.7


# Data


def test_a_part_is_what_the_whole_has_there() -> None:
    high = picture(0, 96, 72)
    low = shrink(high, 3)
    whole = np.asarray(enlarge(low, 3))
    for left, top in ((0, 0), (5, 7), (22, 14)):
        box = (left, top, left + 10, top + 10)
        assert np.array_equal(shrink(high, 3, box), low.crop(box))
        inside = whole[top * 3 : (top + 10) * 3, left * 3 : (left + 10) * 3]
        assert np.array_equal(enlarge_part(high, None, 3, box), inside)
        assert np.array_equal(enlarge_part(high, low, 3, box), inside)


def test_patches_go_together_and_every_way_comes(folder: Path) -> None:
    split = opened(folder, 2).splits["train"]
    ways = []
    for flip, turn in ((False, False), (True, True)):
        loader = PatchLoader(split, (2,), patch=8, repeats=4, enlarged=False, flip=flip, turn=turn, batch_size=4,
                             seed=0, workers=0)  # fmt: skip
        batch = next(loader.batches(0))
        again = PatchLoader(split, (2,), patch=8, repeats=4, enlarged=True, flip=flip, turn=turn, batch_size=4,
                            seed=0, workers=1)  # fmt: skip
        enlarged = next(again.batches(0))
        assert batch.low.shape == (4, 3, 8, 8) and enlarged.low.shape == batch.high.shape == (4, 3, 16, 16)
        assert torch.equal(enlarged.high, batch.high)  # whoever makes them
        for low, high in zip(batch.low, batch.high, strict=True):
            means = high.float().unfold(1, 2, 2).unfold(2, 2, 2).mean((3, 4))
            assert (means - low.float()).abs().mean() < 6
        ways.append(batch.low)
    assert not torch.equal(*ways)


def test_stored_pairs_are_taken_and_other_scales_are_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = pairs(tmp_path / "set", 2, [(40, 32)] * 12)
    assert recognise(str(root)) and not recognise(str(root / "HR"))
    data = opened(root, 2)
    assert data.images.format == "image pairs" and sum(map(len, data.splits.values())) == 12
    low, high = data.splits["train"].pair(0, 2)
    assert low.size == (20, 16) and high.size == (40, 32) and len(low.getcolors()) == 1
    made, _ = opened(root, 4).splits["train"].pair(0, 4)
    assert made.size == (10, 8) and len(made.getcolors()) > 1
    report = check_resolutions(str(root), CaptionSource(source=str(root)))
    assert report.facts["scales stored"] == [2] and not report.problems
    assert orchard("data", "check", root, "--model", "edsr_nano", "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(report.to_json()))
    before = data.images.fingerprint
    Image.new("RGB", (20, 16), "white").save(root / "LRx2" / "3.png")
    assert opened(root, 2).images.fingerprint != before


def test_pairs_in_folders_of_splits(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        pairs(tmp_path / split, 2, [(40, 32)] * 3)
    data = opened(tmp_path, 2)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 3, "validation": 3}
    assert data.splits["validation"].low[2].names[0] == "validation/LRx2/0.png"


def test_bad_pairs_are_named_in_a_line_or_left_out(tmp_path: Path) -> None:
    root = pairs(tmp_path, 2, [(40, 32)] * 12)
    Image.new("RGB", (19, 16)).save(root / "LRx2" / "1.png")
    (root / "LRx2" / "2.png").unlink()
    (root / "LRx2" / "3.png").write_bytes(b"no image")
    with pytest.raises(OrchardError) as caught:
        opened(root, 2)
    said = str(caught.value)
    assert "3 of 12 pictures do not go with their low resolution" in said
    assert "HR/1.png: LRx2/1.png is 19x16, expected 20x16, 1/2 of 40x32" in said
    assert "LRx2/2.png: there is no such file" in said and "LRx2/3.png: not a picture" in said
    assert sum(map(len, opened(root, 2, bad_records="skip").splits.values())) == 9


def test_an_image_smaller_than_a_patch_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OrchardError) as caught:
        train("edsr_nano", str(folder), tmp_path / "run", **SMALL | {"patch": 19})
    assert "pixels; patches of 19 at scale 2 need 38 a side: set patch=" in str(caught.value)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


# Pieces


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("edsr_nano", {"blocks": 1, "width": 6}),
        ("edsr_nano", {"blocks": 2, "width": 6, "scale": 3}),
        ("mdsr_nano", {"blocks": 1, "width": 6, "scales": (2, 4)}),
        ("srresnet_nano", {"blocks": 1, "width": 6}),
        ("msrresnet_nano", {"blocks": 1, "width": 6}),
        ("msrresnet0_x4", {"blocks": 1, "width": 6}),
        ("srcnn_955_x2", {}),
    ],
)
def test_pieces_are_what_the_whole_gives(name: str, settings: dict[str, Any]) -> None:
    """And with one pixel less around them they would not be: the radius is what the network sees."""
    torch.manual_seed(0)
    model: Any = create_model(name, **settings).eval()
    image = picture(1, 61, 45)
    scale = model.scales[-1]
    whole = np.asarray(Upscaler(model, scale, tile=10**6)(image)).astype(int)
    for tile in (16, 23):
        assert abs(np.asarray(Upscaler(model, scale, tile=tile)(image)).astype(int) - whole).max() <= 1  # of rounding
    radius, side = model.receptive_radius, 2 * model.receptive_radius + 9
    middle = side // 2
    images = torch.rand(1, model.channels, side, side, requires_grad=True)
    factor = 1 if model.enlarged else scale
    cell = model.double().upscale(images.double(), scale)[..., middle * factor : (middle + 1) * factor, :]
    (gradient,) = torch.autograd.grad(cell[..., middle * factor : (middle + 1) * factor].square().sum(), images)
    rows = gradient.abs().amax((0, 1, 3)).nonzero().flatten() - middle
    reached = max(-int(rows.min()), int(rows.max()))
    assert 0.7 * radius <= reached <= radius  # ReLU stops some of the longest ways


def test_a_grey_image_stays_grey_and_colours_stay_where_luma_is_learned() -> None:
    torch.manual_seed(0)
    edsr, srcnn = create_model("edsr_nano", width=8, blocks=1).eval(), create_model("srcnn_915_x2").eval()
    assert Upscaler(edsr, 4)(picture(0, 20, 18, "L")).mode == "L"
    assert Upscaler(srcnn, 2)(picture(0, 20, 18, "L")).mode == "L"
    pixels = pil_to_tensor(picture(0, 24, 20))[None] // 2 + 60
    assert torch.equal(from_network(to_network(pixels, srcnn), pixels, srcnn), pixels)
    assert torch.equal(from_network(to_network(pixels, edsr), pixels, edsr), pixels)
    change = from_network(to_network(pixels, srcnn) + 10 * 219 / 255**2, pixels, srcnn).int() - pixels.int()
    assert (change == 10).all()


def test_what_could_not_be_read_again_is_not_made() -> None:
    model = create_model("edsr_nano", width=8, blocks=1).eval()
    with pytest.raises(ValueError, match=r"^40000x4000 pixels are more than the 100 million"):
        Upscaler(model, 4)(Image.new("L", (10_000, 1000)))


# Runs


def test_a_run_and_its_report(run: tuple[Path, dict[str, Any]]) -> None:
    path, metrics = run
    assert metrics["task"] == "super-resolution" and metrics["patches_per_second"] > 0
    for key in ("psnr", "ssim", "psnr_rgb", "bicubic_psnr", "bicubic_ssim", "bicubic_psnr_rgb"):
        assert np.isfinite(metrics["test"][key])
    page = (path / "report.html").read_text()
    assert "against bicubic enlargement" in page and page.count("<figure>") >= 2


def test_a_run_goes_on_as_if_it_had_not_stopped(run: tuple[Path, dict[str, Any]], folder: Path, tmp_path: Path) -> None:
    train("edsr_nano", str(folder), tmp_path / "run", **SMALL | {"max_steps": 3})
    train("edsr_nano", str(folder), tmp_path / "run", **SMALL)
    weights = [load_file(at / "model" / "model.safetensors") for at in (run[0], tmp_path / "run")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_another_scale_begins_with_the_weights_of_one(
    run: tuple[Path, dict[str, Any]], folder: Path, tmp_path: Path
) -> None:
    settings = SMALL | {"architecture": {"blocks": 1, "width": 8, "scale": 3}, "max_steps": 1, "patch": 6}
    train("edsr_nano", str(folder), tmp_path / "run", **settings, start_from=str(run[0]), optimizer={"lr": 1e-9})
    before, after = (load_file(at / "model" / "model.safetensors") for at in (run[0], tmp_path / "run"))
    torch.testing.assert_close(after["head.weight"], before["head.weight"], atol=1e-6, rtol=0)
    assert after["upsample.0.conv.weight"].shape != before["upsample.0.conv.weight"].shape


def test_several_scales_and_luma_learn(folder: Path, tmp_path: Path) -> None:
    several = {"architecture": {"blocks": 1, "width": 8, "scales": (2, 3)}, "patch": 6}
    metrics = train("mdsr_nano", str(folder), tmp_path / "mdsr", **SMALL | several)
    mean = (metrics["test"]["psnr_x2"] + metrics["test"]["psnr_x3"]) / 2
    assert metrics["test"]["psnr"] == pytest.approx(mean)
    luma_only = train("srcnn_915_x2", str(folder), tmp_path / "srcnn", **SMALL | {"architecture": {}, "loss": "mse"})
    assert np.isfinite(luma_only["test"]["psnr"])
    with pytest.raises(UsageError, match="enlarges by 2 or 3, not by 4"):
        pipeline(tmp_path / "mdsr", scale=4)
    assert pipeline(tmp_path / "mdsr", scale=2)(picture(0, 20, 10)).size == (40, 20)
    assert [entry.name for entry in entries(load(tmp_path / "mdsr"))] == ["x2", "x3"]


def test_evaluation_by_pairs(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root = pairs(tmp_path, 2, [(40, 32), (37, 33)])
    found = evaluate(run[0], str(root))
    assert found["count"] == 2 and found["test"]["bicubic_psnr"] < 25  # plain colours are no likeness
    Image.new("RGB", (12, 30)).save(root / "HR" / "0.png")
    Image.new("RGB", (6, 15)).save(root / "LRx2" / "0.png")
    with pytest.raises(OrchardError, match=r"0\.png is 12x30 pixels; its metrics need 15 a side: take it out$"):
        evaluate(run[0], str(root))


def test_answers_are_files_beside_bicubic_and_the_truth(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    for name in ("low", "high"):
        (tmp_path / name).mkdir()
    high = picture(5, 50, 40)
    high.save(tmp_path / "high" / "cat.png")
    shrink(high, 2).save(tmp_path / "low" / "cat.png")
    Image.new("RGBA", (9, 7), (255, 0, 0, 0)).save(tmp_path / "low" / "clear.png")
    Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(tmp_path / "low" / "deep.png")
    (tmp_path / "low" / "bad.png").write_bytes(b"no image")
    out, low = tmp_path / "out", str(tmp_path / "low")
    found = {Path(one.item).stem: one for one in answer(run[0], [low], Options(out=out), print)}
    assert "not a picture" in found["bad"].error
    assert Image.open(out / "deep_x2.png").mode == "L" and Image.open(out / "clear_x2.png").size == (18, 14)
    assert found["cat"].size == (25, 20) and found["cat"].enlarged == Image.open(out / "cat_x2.png").size == (50, 40)
    assert Image.open(found["cat"].compared).size == (104, 40)
    with pytest.raises(UsageError, match=r"bad_x2\.png is there already|cat_x2\.png is there already"):
        list(answer(run[0], [low], Options(out=out), print))
    (cat,) = answer(run[0], [str(tmp_path / "low" / "cat.png")], Options(out=tmp_path / "two", truth=tmp_path / "high"),
                    print)  # fmt: skip
    assert dict(cat.metrics)["bicubic_psnr"] > 20 and Image.open(cat.compared).size == (158, 40)
    assert json.loads(json.dumps(cat.to_json()))["psnr"] == dict(cat.metrics)["psnr"]
    assert len(cat.columns()) == len(cat.cells())
    (other,) = answer(run[0], [str(tmp_path / "low" / "clear.png")],
                      Options(out=tmp_path / "three", truth=tmp_path / "high"), print)  # fmt: skip
    assert "no image of this name" in other.error


def test_the_pipeline_takes_what_python_has(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    upscale = pipeline(run[0])
    image = picture(2, 21, 17)
    found = upscale(image)
    assert found.size == (42, 34)
    assert np.array_equal(found, upscale(np.array(image))) and np.array_equal(found, upscale(pil_to_tensor(image)))
    with pytest.raises(OrchardError, match="there is no such file"):
        list(upscale.predict([tmp_path / "none.png"])) and upscale(str(tmp_path / "none.png"))


def test_an_export_takes_images_of_any_size(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    (written,) = export(run[0], "onnx", tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(written.path, providers=["CPUExecutionProvider"])
    images: Tensor = 255 * torch.rand(2, 3, 31, 18)
    (got,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(got), load(run[0]).model(images), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "file", "key", "source"),
    [
        ("edsr_baseline_x4", "edsr", "edsr_baseline_x4", "official"),
        ("edsr_x3", "edsr", "edsr_x3", "official"),
        ("mdsr_baseline", "edsr", "mdsr_baseline", "official"),
        ("srcnn_955_x3", "srcnn", "srcnn_955", "pytorch"),
        ("msrresnet0_x4", "srresnet", "kair_msrresnet0_x4", "kair"),
    ],
)
def test_names_and_shapes_are_those_of_official_files(
    name: str, file: str, key: str, source: str, golden: Path
) -> None:
    theirs = json.loads((golden / file / "official_checkpoint_keys.json").read_text())[key]
    with torch.device("meta"):
        model = create_model(name)
    assert {name: list(tensor.shape) for name, tensor in export_official(model, source).items()} == theirs
