"""TTSR: parts as the official code has them, references in data, training by all losses, pictures with a reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import orchard
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms.functional import to_pil_image

from orchard.app.evaluate import evaluate
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.data.patches import PatchLoader, ReferencePatchLoader
from orchard.data.references import open_with_references, recognise, stored_references
from orchard.data.settings import ReferenceSource
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.models.restoration.texture_search import search, transfer
from orchard.models.restoration.ttsr import Textures, official_names, resampled
from orchard.models.restoration.ttsr_discriminator import TextureDiscriminator
from orchard.nn.vgg_features import VggFeatures, layer_names
from orchard.tasks.super_resolution.job import entries
from orchard.tasks.super_resolution.metrics import METRICS, WHOLE, compare_whole
from orchard.tasks.super_resolution.textures import describe_frozen, perceptual_loss, transferal_loss, wasserstein_loss
from orchard.tasks.super_resolution.upscaling import Upscaler
from orchard.weights.golden import Stored, read_golden
from orchard.weights.names import to_ours
from orchard.weights.official import export_official, weights_of

TINY = {"width": 8, "blocks": (1, 1, 1, 1), "features": (4, 6, 8)}
SMALL: dict[str, Any] = {
    "architecture": TINY,
    "patch": 8,
    "patches_per_image": 4,
    "batch_size": 4,
    "max_steps": 6,
    "log_every": 2,
    "data.workers": 0,
}
ALL_LOSSES = {"texture": {"perceptual_weight": 0.01, "transferal_weight": 0.01, "adversarial_weight": 0.001,
                          "warmup_epochs": 0.5}}  # fmt: skip


@pytest.fixture
def stored(golden: Path) -> Any:
    return lambda case: read_golden(golden / "ttsr" / case)


def picture(seed: int, width: int, height: int) -> Image.Image:
    fields = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return Image.fromarray(fields).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sequences of frames, of which one has no even numbers."""
    root = tmp_path_factory.mktemp("frames")
    for n in range(6):
        picture(n, 40, 36).save(root / f"walk_{n:03d}.png")
        picture(10 + n, 44, 40).save(root / f"ride_{2 * n + 1:03d}.png")
    return root


@pytest.fixture(scope="module")
def run(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("runs") / "run"
    return path, train("ttsr_nano", str(frames), path, **SMALL)


def opened(source: Path, **settings: Any) -> Any:
    return open_with_references(str(source), ReferenceSource(source=str(source), **settings), (4,))


# Parts as the official code has them


@pytest.mark.parametrize(("case", "widths"), [("lte", (64, 128, 256)), ("vgg19_relu5_1", (64, 128, 256, 512, 512))])
def test_features_are_those_of_vgg(stored: Any, case: str, widths: tuple[int, ...]) -> None:
    features, given = VggFeatures(widths), stored(case)
    counts = [len(stage) for stage in features.stages]  # type: ignore[arg-type]
    official = {name.partition(".")[2]: tensor for name, tensor in given.state.items()}
    flat = {f"features.{index}.{part}": official[f"{index}.{part}"]
            for _, _, index in layer_names(counts) for part in ("weight", "bias")}  # fmt: skip
    features.load(flat | {"classifier.0.weight": torch.zeros(1)})
    found = features(given.given("x01"))
    names = ("lv1", "lv2", "lv3") if case == "lte" else ("relu5_1",)
    for ours, name in zip(found[-len(names) :], names, strict=True):
        torch.testing.assert_close(ours, given.computed(name), atol=1e-5, rtol=1e-4)
    with pytest.raises(KeyError):
        VggFeatures(widths).load({})


@pytest.mark.parametrize(("keys", "entries"), [(2**13, 2**26), (10, 90), (1, 1)])
def test_search_in_blocks_is_the_whole_search(stored: Any, keys: int, entries: int) -> None:
    given: Stored = stored("search_transfer")
    queries, there = given.given("lrsr_lv3"), given.given("refsr_lv3")
    soft, index = search(queries, there, most_keys=keys, most_entries=entries)
    torch.testing.assert_close(soft.view(2, 1, 6, 7), given.computed("S"))
    assert torch.equal(index, given.computed("hard_index"))
    for n, level in enumerate(("lv3", "lv2", "lv1")):
        found = transfer(given.given(f"ref_{level}"), index, (6, 7), 2**n)
        torch.testing.assert_close(found, given.computed(f"T_{level}"), atol=1e-6, rtol=1e-5)


def test_the_main_network_is_the_official_one(stored: Any) -> None:
    given: Stored = stored("mainnet")
    model: Any = create_model("ttsr", width=16, blocks=(1, 2, 1, 1))
    state = model.state_dict()
    ours = {name: tensor for name, tensor in state.items() if name.startswith("synthesis.")}
    theirs = {f"MainNet.{name}": tensor for name, tensor in given.state.items()}
    model.load_state_dict(state | to_ours(official_names(model.config), theirs, ours))
    textures = Textures(given.given("S"), tuple(given.given(f"T_lv{n}") for n in (3, 2, 1)))
    images = given.given("lr")
    torch.testing.assert_close(model.synthesis(images, textures), given.computed("before_clamp"), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(model.synthesise(images, textures), given.computed("sr"), atol=2e-5, rtol=1e-5)
    assert (given.computed("sr").abs() == 1).any()


def test_losses_and_metrics_are_the_official_ones(stored: Any) -> None:
    given: Stored = stored("losses")
    sr, hr = given.given("sr"), given.given("hr")
    assert F.l1_loss(sr, hr).item() == pytest.approx(given.computed("rec_l1").item())
    features = iter((given.given("sr_relu5_1"), given.given("hr_relu5_1")))
    vgg: Any = lambda images: [next(features)]  # noqa: E731 of sr, then of hr
    assert perceptual_loss(vgg, sr, hr).item() == pytest.approx(given.computed("perceptual").item())
    maps, found = ([given.given(f"{kind}_lv{n}") for n in order]
                   for kind, order in (("map", (1, 2, 3)), ("T", (3, 2, 1))))  # fmt: skip
    assert transferal_loss(maps, found).item() == pytest.approx(given.computed("tpl_useS_False_l2").item())
    pixels = [((one[0] + 1) * 127.5).round() for one in (sr, hr)]
    metrics = dict(
        zip((*METRICS, *WHOLE), compare_whole(*(to_pil_image(one.byte()) for one in pixels), 4), strict=True)
    )
    assert metrics["psnr_whole"] == pytest.approx(given.computed("psnr_y_image0").item(), abs=2e-3)
    assert metrics["ssim_whole"] == pytest.approx(given.computed("ssim_image0").item(), abs=1e-5)


def test_the_discriminator_learns_as_the_official_one(stored: Any) -> None:
    given: Stored = stored("adversarial")
    discriminator = TextureDiscriminator(32)
    names = [f"convolutions.{n}" for n in range(10)], [f"conv{n + 1}" for n in range(10)]
    pairs = [*zip(*names, strict=True), ("hidden", "fc1"), ("score", "fc2")]
    discriminator.load_state_dict(
        {f"{ours}.{part}": given.state[f"{theirs}.{part}"] for ours, theirs in pairs for part in ("weight", "bias")}
    )
    fake, real, epsilon = (given.given(name) for name in ("fake", "real", "epsilon"))
    torch.testing.assert_close(discriminator(fake)[:, None], given.computed("d_fake"), atol=1e-5, rtol=1e-4)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-4, betas=(0.0, 0.9), eps=1e-8)
    for step in (0, 1):
        loss, scores = wasserstein_loss(discriminator, real, fake, 10.0, epsilon)
        torch.testing.assert_close(loss, given.computed(f"loss_d_step{step}"), atol=1e-4, rtol=1e-3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert scores.keys() == {"score_real", "score_fake"}
    adversarial = -discriminator(fake).mean()
    torch.testing.assert_close(adversarial, given.computed("loss_g_after_steps"), atol=1e-4, rtol=1e-3)


def test_an_official_file_may_hold_the_copy_of_the_extractor() -> None:
    """With it there are 7.285 million parameters, as the official code counts."""
    from orchard.models import landmark_of

    with torch.device("meta"):
        model = create_model("ttsr")
    theirs = export_official(model, "official")
    copy = {name.replace("LTE.", "LTE_copy."): one for name, one in theirs.items() if name.startswith("LTE.")}
    assert sum(tensor.numel() for tensor in (theirs | copy).values()) == 7_284_955
    assert weights_of(landmark_of("ttsr"), "official", theirs | copy).keys() == theirs.keys()


def test_the_frozen_copy_passes_gradients_to_images_alone() -> None:
    model: Any = create_model("ttsr_nano", **TINY)
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    sum(one.sum() for one in describe_frozen(model.extractor, images)).backward()  # type: ignore[union-attr]
    assert images.grad is not None and all(p.grad is None for p in model.extractor.parameters())


# References


def test_references_stored_in_two_folders(tmp_path: Path, capsys: Any) -> None:
    for split in ("train", "test"):
        for n, folder in enumerate(("input", "ref")):
            (tmp_path / split / folder).mkdir(parents=True)
            for k in range(4):
                ending = "png" if folder == "input" else "jpg"
                picture(8 * n + k, 40 - 8 * n, 44).save(tmp_path / split / folder / f"{k}.{ending}")
    data = opened(tmp_path)
    test = data.splits["test"]
    assert data.images.format == "images and references" and len(test) == 4
    assert test.size(1) == (44, 40) and test.reference_size(1) == (44, 32) and test.reference(1).size == (32, 44)
    before = data.images.fingerprint
    picture(99, 32, 44).save(tmp_path / "test" / "ref" / "1.jpg")
    assert opened(tmp_path).images.fingerprint != before
    assert recognise(str(tmp_path)) and not recognise(str(tmp_path / "test" / "ref"))
    assert orchard("data", "check", tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["test"] == {"images": 4, "references": 4}
    (tmp_path / "test" / "ref" / "2.jpg").unlink()
    (tmp_path / "test" / "ref" / "3.jpg").write_bytes(b"no image")
    with pytest.raises(OrchardError, match=r"2 of 8 pictures have no reference: test/input/2\.png: no picture of its"):
        opened(tmp_path)
    assert len(opened(tmp_path, bad_records="skip").splits["test"]) == 2


def test_references_stored_by_number() -> None:
    names = ["001_0.png", "001_1.png", "001_2.png", "002_0.jpg", "002_1.png", "notes.txt"]
    assert stored_references(names) == {"001_0.png": "001_1.png", "002_0.jpg": "002_1.png"}
    assert stored_references([*names, "003_0.png"]) == {}  # it has none: these are not pairs
    assert stored_references([f"frame_{n}.png" for n in range(9)]) == {}


def test_references_chosen_among_the_images(frames: Path, tmp_path: Path) -> None:
    def chosen(how: str | None) -> dict[str, str]:
        found = {}
        for split in opened(frames, reference=how).splits.values():
            for n in range(len(split)):
                other, place = split.references[n]
                found[Path(split.key(n)).stem] = Path(other.key(place)).stem
        return found

    near = chosen(None)
    assert near["walk_002"] == "walk_003" and near["walk_005"] == "walk_004" and near["ride_011"] == "ride_009"
    assert {name[:4] + other[:4] for name, other in chosen("unrelated").items()} == {"walkride", "ridewalk"}
    assert all(name == other for name, other in chosen("self").items())
    with pytest.raises(OrchardError, match="stores no references; expected folders input and ref"):
        opened(frames, reference="stored")
    for n in range(10):
        picture(n, 40, 40).save(tmp_path / f"{'abcdefghij'[n]}.png")
    with pytest.raises(OrchardError, match=r"[a-j]\.png has no neighbouring frame; expected names that differ in a"):
        opened(tmp_path)
    assert opened(tmp_path, reference="unrelated").splits["train"].reference(0) is not None


def test_reference_patches_stand_beside_the_same_patches(frames: Path) -> None:
    split = opened(frames, reference="self").splits["train"]
    how: dict[str, Any] = dict(patch=8, repeats=4, enlarged=False, batch_size=6, seed=0)
    plain, beside = (kind(split, (4,), flip=False, turn=False, workers=n, **how)
                     for n, kind in enumerate((PatchLoader, ReferencePatchLoader)))  # fmt: skip
    a, b = next(plain.batches(0)), next(beside.batches(0))
    assert torch.equal(a.low, b.low) and torch.equal(a.high, b.high) and b.reference.shape == (6, 3, 32, 32)
    # The window is at the same place to the pixels of a low one.
    assert (b.high.float().mean((2, 3)) - b.reference.float().mean((2, 3))).abs().max() < 40
    turned = next(ReferencePatchLoader(split, (4,), flip=True, turn=True, workers=0, **how).batches(0))
    assert not torch.equal(turned.reference, b.reference)
    large = ReferencePatchLoader(split, (4,), flip=False, turn=False, workers=0, **how | {"patch": 9})
    small = large._reference(0, 60, np.zeros(64))
    assert small.shape == (60, 60, 3) and not small[45:].any() and small[:30, :30].any()


# The network


@pytest.mark.parametrize("tile", [16, 23])
def test_pieces_are_what_the_whole_gives(tile: int) -> None:
    torch.manual_seed(0)
    model: Any = create_model("ttsr_nano", **TINY).eval()
    image, reference = picture(1, 90, 40), picture(2, 37, 50)
    whole = np.asarray(Upscaler(model, 4, tile=10**6)(image, reference)).astype(int)
    found = np.asarray(Upscaler(model, 4, tile=tile)(image, reference)).astype(int)
    assert whole.shape == (160, 360, 3) and abs(found - whole).max() <= 1  # of rounding


def test_references_of_any_size_and_wrong_ones() -> None:
    torch.manual_seed(0)
    model: Any = create_model("ttsr_nano", **TINY).eval()
    images = torch.rand(2, 3, 7, 9) * 2 - 1
    for height, width in ((4, 5), (31, 18), (90, 7)):
        assert model(images, torch.rand(2, 3, height, width)).shape == (2, 3, 28, 36)
    with pytest.raises(ValueError, match=r"^expected pictures of at least 4 pixels a side"):
        model(images, torch.rand(2, 3, 3, 20))
    with pytest.raises(ValueError, match="expected a scale of 4 and a reference, got 4, NoneType"):
        model.upscale(images, 4)


def test_what_pillow_makes_is_made_here_nearly_alike() -> None:
    """So that an official checkpoint is given what the official code gives it."""
    image = picture(1, 64, 48)
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
    for width, height in ((16, 12), (256, 192)):
        theirs = torch.from_numpy(np.array(image.resize((width, height), Image.Resampling.BICUBIC))).permute(2, 0, 1)
        levels = (resampled(values, height, width)[0] + 1) * 127.5 - theirs
        assert levels.abs().max() < 1.01 and (levels.abs() > 0.5).float().mean() < 0.01


# Runs


def test_a_run_with_references(run: tuple[Path, dict[str, Any]], frames: Path, tmp_path: Path) -> None:
    path, metrics = run
    assert np.isfinite(metrics["test"]["psnr"]) and (path / "report.html").is_file()
    train("ttsr_nano", str(frames), tmp_path / "run", **SMALL | {"max_steps": 3})
    train("ttsr_nano", str(frames), tmp_path / "run", **SMALL)
    weights = [load_file(at / "model" / "model.safetensors") for at in (path, tmp_path / "run")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    near, other = (evaluate(path, str(frames), settings={"reference": how})["test"] for how in ("self", "unrelated"))
    assert near["psnr"] != other["psnr"] and near["bicubic_psnr"] == other["bicubic_psnr"]
    assert np.isfinite(near["psnr_whole"]) and near["bicubic_ssim_whole"] > 0


def test_all_losses_are_learned_after_the_warm_up(frames: Path, tmp_path: Path, capsys: Any) -> None:
    """Twelve images of four patches, less what is held out: nine batches in an epoch, four of them of pixels alone."""
    said = " texture.vgg names no VGG-19 weights: the perceptual loss is left out"
    train("ttsr_nano", str(frames), tmp_path / "run", **SMALL | ALL_LOSSES)
    assert said in capsys.readouterr().err
    lines = [line.split(",") for line in (tmp_path / "run" / "log.csv").read_text().splitlines()]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    learned = [row for row in rows if row.get("reconstruction_loss")]
    assert not learned[0]["adversarial_loss"] and not learned[0]["score_real"]
    assert learned[-1]["adversarial_loss"] and learned[-1]["transferal_loss"] and learned[-1]["score_real"]
    assert set(load_file(tmp_path / "run" / "model" / "model.safetensors")) == set(
        create_model("ttsr_nano", **TINY).state_dict()
    )


def test_vgg_weights_of_a_file_are_taken(frames: Path, tmp_path: Path) -> None:
    features = VggFeatures()
    counts = [len(stage) for stage in features.stages]  # type: ignore[arg-type]
    state = features.state_dict()
    flat = {f"features.{index}.{part}": state[f"stages.{stage}.{layer}.{part}"]
            for stage, layer, index in layer_names(counts) for part in ("weight", "bias")}  # fmt: skip
    save_file(flat, tmp_path / "vgg19.safetensors")
    settings = SMALL | {"architecture": TINY | {"features": (64, 128, 256)}, "max_steps": 1, "batch_size": 2}
    texture = {"perceptual_weight": 0.01, "warmup_epochs": 0, "vgg": str(tmp_path / "vgg19.safetensors")}
    train("ttsr_nano", str(frames), tmp_path / "run", **settings, texture=texture, optimizer={"lr": 1e-9})
    assert "perceptual_loss" in (tmp_path / "run" / "log.csv").read_text().splitlines()[0]
    learned = load_file(tmp_path / "run" / "model" / "model.safetensors")["extractor.stages.2.0.weight"]
    torch.testing.assert_close(learned, flat["features.10.weight"], atol=1e-6, rtol=0)
    with pytest.raises(OrchardError, match="does not fit the texture extractor"):
        train("ttsr_nano", str(frames), tmp_path / "other", **SMALL, texture=texture)


def test_pictures_with_a_reference(run: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: Any) -> None:
    low, reference = picture(3, 13, 11), picture(4, 50, 30)
    (tmp_path / "refs").mkdir()
    low.save(tmp_path / "low.png")
    reference.save(tmp_path / "refs" / "low.jpg")
    reference.save(tmp_path / "ref.png")
    upscale = pipeline(run[0])
    found = upscale(low, reference=reference)
    assert found.size == (52, 44) and np.array_equal(found, upscale(tmp_path / "low.png", np.array(reference)))
    assert orchard("predict", run[0], tmp_path / "low.png", "--reference", tmp_path / "ref.png", "--out",
                   tmp_path / "one", "--json") == 0  # fmt: skip
    (answer,) = json.loads(capsys.readouterr().out)
    assert np.array_equal(Image.open(answer["image"]), found)
    assert orchard("predict", run[0], tmp_path / "low.png", "--reference", tmp_path / "refs", "--out",
                   tmp_path / "two", "--json") == 0  # fmt: skip
    with pytest.raises(UsageError, match="takes textures from a reference picture; name one: --reference"):
        upscale(low)
    with pytest.raises(OrchardError, match="its reference: there is no such file"):
        upscale(low, tmp_path / "none.png")
    with pytest.raises(OrchardError, match="expected pictures of at least 4 pixels a side"):
        upscale(low, picture(0, 3, 30))
    with pytest.raises(UsageError, match="searches a reference of any size block by block and cannot be exported"):
        entries(load(run[0]))


def test_models_without_a_reference_say_so(frames: Path, tmp_path: Path) -> None:
    small = SMALL | {"architecture": {"blocks": 1, "width": 8}, "max_steps": 1}
    for key in ("data.reference", "texture.vgg"):
        with pytest.raises(UsageError, match=rf"setting '{key}': edsr_nano takes no reference picture; leave it out"):
            train("edsr_nano", str(frames), tmp_path / "no", **small, **{key: "self"})
    train("edsr_nano", str(frames), tmp_path / "run", **small)
    with pytest.raises(UsageError, match="takes no reference picture; leave it out"):
        pipeline(tmp_path / "run")(picture(0, 20, 20), picture(1, 20, 20))
    with pytest.raises(UsageError, match=r"setting 'data.reference': edsr_nano takes no reference"):
        evaluate(tmp_path / "run", str(frames), settings={"reference": "self"})
