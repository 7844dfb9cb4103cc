"""Image to image at work: losses, the pool, trainings that are resumed exactly, answers, reports, official files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from stopping import stopped_after
from torch import Tensor

from orchard.app.answer import answer
from orchard.app.evaluate import evaluate
from orchard.app.importing import import_checkpoint
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.data.two_sides.loader import SidesBatch
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.tasks.image_to_image.attention import Attention
from orchard.tasks.image_to_image.job import entries
from orchard.tasks.image_to_image.learner import CycleLearner, ImagePool
from orchard.tasks.image_to_image.paired import Paired
from orchard.tasks.image_to_image.settings import AttentionSettings, PairedSettings, UnpairedSettings
from orchard.tasks.image_to_image.unpaired import Unpaired
from orchard.tasks.unconditional_image_generation.learner import GenerationLearner
from orchard.training.optim import learning_rate_factor
from orchard.training.settings import ScheduleSettings
from orchard.weights.official import export_official

PIX2PIX: dict[str, Any] = {"levels": 4, "width": 4, "discriminator_width": 4, "discriminator_layers": 1}
CYCLEGAN: dict[str, Any] = {"blocks": 1, "width": 4, "discriminator_width": 4, "discriminator_layers": 1}
UGATIT: dict[str, Any] = {
    "blocks": 1, "width": 4, "discriminator_width": 4, "global_layers": 4, "local_layers": 3,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "image_size": 16,
    "batch_size": 1,
    "max_steps": 8,
    "log_every": 1,
    "evaluate_steps": 4,
    "data.workers": 0,
}


def save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey A and its colours B, which are 24 x 20 pixels, with a test of their own."""
    root = tmp_path_factory.mktemp("pairs")
    for n in range(14):
        fields = np.random.default_rng(n).integers(0, 256, (5, 6, 3), np.uint8)
        image = Image.fromarray(fields).resize((24, 20), Image.Resampling.BICUBIC)
        part = "test" if n >= 10 else "train"
        save(root / f"{part}A/{n}.png", image.convert("L"))
        save(root / f"{part}B/{n}.png", image)
    return root


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    for n in range(24):
        for side, low in (("A", 0), ("B", 100)):
            fields = np.random.default_rng(n + low).integers(low, low + 150, (5, 5, 3), np.uint8)
            save(root / f"{side}/{side}{n}.png", Image.fromarray(fields).resize((20, 20), Image.Resampling.BICUBIC))
    return root


SPLIT: dict[str, Any] = {"data.validation_fraction": 0.3, "data.test_fraction": 0.3}


@pytest.fixture(scope="module")
def paired_run(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("paired") / "run"
    train("pix2pix_nano", str(pairs), path, architecture=PIX2PIX, **SMALL, **SPLIT)
    return path


@pytest.fixture(scope="module")
def unpaired_run(two_sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("unpaired") / "run"
    train("cyclegan_nano", str(two_sets), path, architecture=CYCLEGAN, **SMALL, **SPLIT)
    return path


# Losses


def test_the_losses_of_pairs_by_hand() -> None:
    torch.manual_seed(0)
    model: Any = create_model("pix2pix_nano", image_size=16, dropout=0.0, **PIX2PIX).train()
    learner = GenerationLearner(model, (3, 16, 16))
    batch = SidesBatch(torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16), torch.arange(2))
    for direction, given, wanted in (("AtoB", batch.a, batch.b), ("BtoA", batch.b, batch.a)):
        objective = Paired(PairedSettings(), direction)
        made = model.generator(given)
        real, fake = (model.discriminator(torch.cat([given, x], 1)) for x in (wanted, made))
        ones, zeros = torch.ones_like(real), torch.zeros_like(real)
        entropy = F.binary_cross_entropy_with_logits
        loss, _ = objective.discriminator_loss(learner, batch, 0)
        torch.testing.assert_close(loss, (entropy(real, ones) + entropy(fake, zeros)) / 2)
        loss, parts = objective.generator_loss(learner, batch, 0)
        torch.testing.assert_close(loss, entropy(fake, ones) + 100 * (made - wanted).abs().mean())
        torch.testing.assert_close(parts["pixel_loss"], (made - wanted).abs().mean())


def test_the_losses_without_pairs_by_hand() -> None:
    torch.manual_seed(0)
    model: Any = create_model("cyclegan_nano", image_size=16, **CYCLEGAN).train()
    learner = CycleLearner(model, (3, 16, 16), pool=2)
    a, b = torch.rand(2, 1, 3, 16, 16)
    batch = SidesBatch(a, b, torch.arange(1))
    there, back = model.generators["AtoB"], model.generators["BtoA"]
    judge_a, judge_b = model.discriminators["A"], model.discriminators["B"]
    objective = Unpaired(UnpairedSettings())

    def distance(x: Tensor, y: Tensor | float) -> Tensor:
        return (x - y).abs().mean()

    made_b, made_a = there(a), back(b)
    adversarial = (judge_b(made_b) - 1).square().mean() + (judge_a(made_a) - 1).square().mean()
    cycle = distance(back(made_b), a) + distance(there(made_a), b)
    identity = distance(there(b), b) + distance(back(a), a)
    loss, _ = objective.generators_loss(learner, batch, 0)
    torch.testing.assert_close(loss, adversarial + 10 * cycle + 5 * identity)
    loss, _ = objective.discriminators_loss(learner, batch, 0)
    real = (judge_a(a) - 1).square().mean() + (judge_b(b) - 1).square().mean()
    fake = judge_a(made_a).square().mean() + judge_b(made_b).square().mean()
    torch.testing.assert_close(loss, (real + fake) / 2)
    assert not learner.made and int(learner.pools["A"].count) == 1  # type: ignore[arg-type]
    torch.testing.assert_close(learner.pools["B"].images[0], made_b[0])  # type: ignore[index]


def test_the_losses_of_attention_by_hand() -> None:
    torch.manual_seed(0)
    model: Any = create_model("ugatit_nano", image_size=16, **UGATIT).eval()  # singular vectors stay as they are
    learner = GenerationLearner(model, (3, 16, 16))
    a, b = torch.rand(2, 2, 3, 16, 16)
    batch = SidesBatch(a, b, torch.arange(2))
    objective = Attention(AttentionSettings(), model)
    there, back = model.generators["AtoB"], model.generators["BtoA"]
    made_b, made_a, same_b, same_a = there.attend(a), back.attend(b), there.attend(b), back.attend(a)

    def squares(side: str, images: Tensor, wanted: float) -> Tensor:
        said = [part for one in model.discriminators[side](images) for part in (one.scores, one.logits)]
        assert len(said) == 4
        return sum((F.mse_loss(one, torch.full_like(one, wanted)) for one in said), torch.zeros(()))

    expected = squares("A", a, 1) + squares("A", made_a.images, 0) + squares("B", b, 1) + squares("B", made_b.images, 0)
    torch.testing.assert_close(objective.discriminators_loss(learner, batch, 0)[0], expected)
    adversarial = squares("A", made_a.images, 1) + squares("B", made_b.images, 1)
    cycle = (back(made_b.images) - a).abs().mean() + (there(made_a.images) - b).abs().mean()
    identity = (same_a.images - a).abs().mean() + (same_b.images - b).abs().mean()
    asked = ((made_a.logits, same_a.logits), (made_b.logits, same_b.logits))
    cam = sum((F.softplus(-yes).mean() + F.softplus(no).mean() for yes, no in asked), torch.zeros(()))
    loss, parts = objective.generators_loss(learner, batch, 0)
    torch.testing.assert_close(loss, adversarial + 10 * cycle + 10 * identity + 1000 * cam)
    torch.testing.assert_close(parts["attention_loss"], cam)


def test_a_pool_keeps_then_trades_half_of_the_time() -> None:
    torch.manual_seed(0)
    pool = ImagePool(3, (1, 1, 1))
    first = torch.arange(3.0).view(3, 1, 1, 1)
    assert torch.equal(pool.exchange(first), first) and torch.equal(pool.images, first)
    came = torch.cat([pool.exchange(torch.full((1, 1, 1, 1), float(n))) for n in range(3, 203)]).flatten()
    new = sum(int(value) == n for n, value in enumerate(came, 3))
    assert 70 < new < 130
    old = [int(value) for n, value in enumerate(came, 3) if int(value) != n]
    assert len(set(old)) == len(old)  # what has left does not come again
    assert {*old, *pool.images.flatten().int().tolist()} >= {0, 1, 2}
    assert torch.equal(ImagePool(0, (1, 1, 1)).exchange(first), first)


def test_the_rate_falls_in_the_second_half() -> None:
    settings = ScheduleSettings(name="constant_linear", final_fraction=0.0)
    found = [learning_rate_factor(step, 100, 0, settings) for step in (0, 49, 50, 75, 99, 100)]
    assert found == pytest.approx([1, 1, 1, 0.5, 0.02, 0])


# Trainings


@pytest.mark.parametrize("model", ["pix2pix_nano", "cyclegan_nano", "ugatit_nano"])
def test_stopped_and_resumed_ends_in_the_same_bits(model: str, pairs: Path, two_sets: Path, tmp_path: Path) -> None:
    """In the middle of an epoch, with a pool that has begun to trade."""
    paired = model == "pix2pix_nano"
    architecture = {"pix2pix_nano": PIX2PIX, "cyclegan_nano": CYCLEGAN, "ugatit_nano": UGATIT}[model]
    settings = {**SMALL, **SPLIT, "architecture": architecture, "max_steps": 9, "ema": 0.9}
    pooled = model == "cyclegan_nano"
    settings |= {"augmentation.enlarge": 1.2, "augmentation.flip": True} | ({"unpaired.pool": 3} if pooled else {})
    source = str(pairs if paired else two_sets)
    whole = train(model, source, tmp_path / "whole", **settings)
    with stopped_after(5, 9):
        train(model, source, tmp_path / "parts", **settings)
    again = train(model, source, tmp_path / "parts", **settings)
    assert again["test"] == whole["test"]
    files = ["model/model.safetensors", "evaluation/images.safetensors"]
    files += [str(path.relative_to(tmp_path / "whole")) for path in (tmp_path / "whole").glob("checkpoints/*/*.safet*")]
    (checkpoint,) = (file for file in files if file.startswith("checkpoints") and file.endswith("/model.safetensors"))
    assert ("pools.A.images" in load_file(tmp_path / "whole" / checkpoint)) == pooled
    for file in files:
        one, two = (load_file(tmp_path / name / file) for name in ("whole", "parts"))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one), file


def test_a_run_of_pairs_has_metrics_and_a_report(paired_run: Path, pairs: Path) -> None:
    metrics = json.loads((paired_run / "metrics.json").read_text())
    assert set(metrics["test"]) == {"l1", "psnr", "ssim"}
    loaded: Any = load(paired_run)
    assert (loaded.model.config.in_channels, loaded.model.config.out_channels) == (1, 3)
    found = evaluate(paired_run, str(pairs), "test")
    assert found["count"] == 4 and found["test"] == pytest.approx(metrics["test"], abs=1e-4)
    with (paired_run / "log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    for column in ("loss", "generator_loss", "pixel_loss", "adversarial_loss", "score_real", "score_fake"):
        assert float(rows[0][column]), column
    assert metrics["best_step"] == 8  # the last is kept
    page = (paired_run / "report.html").read_text()
    for words in ("Difference of pixels", "Right: the truth", "step 8", "Generator&#39;s loss", "13.png"):
        assert words in page, words
    assert page.count("After step 8, picture") == len(load_file(paired_run / "evaluation/images.safetensors")["given"])


def test_a_run_without_pairs_has_metrics_of_both_directions(unpaired_run: Path, two_sets: Path) -> None:
    metrics = json.loads((unpaired_run / "metrics.json").read_text())["test"]
    assert set(metrics) == {"fid", "fid_AtoB", "fid_BtoA", "cycle_l1", "cycle_l1_A", "cycle_l1_B"}
    assert metrics["fid"] == pytest.approx((metrics["fid_AtoB"] + metrics["fid_BtoA"]) / 2)
    found = evaluate(unpaired_run, str(two_sets))  # all of it, of which it has learned some
    assert found["count"] == 24 and 0 < found["test"]["cycle_l1"] < 1
    page = (unpaired_run / "report.html").read_text()
    for words in ("Changed there and back", "A to B", "B to A", "translated back"):
        assert words in page, words


def test_the_other_direction_of_pairs(pairs: Path, paired_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("pix2pix_nano", str(pairs), run, architecture=PIX2PIX, direction="BtoA", **SMALL | {"max_steps": 1}, **SPLIT)
    loaded: Any = load(run)
    assert (loaded.model.config.in_channels, loaded.model.config.out_channels) == (3, 1)
    assert pipeline(run)(pairs / "trainB/1.png").mode == "L"
    assert pipeline(paired_run)(pairs / "trainA/1.png").mode == "RGB"
    with pytest.raises(UsageError, match=r"this model was trained BtoA; leave out the option 'direction'"):
        pipeline(run, direction="AtoB")


def test_what_cannot_be_learned_is_said_in_one_line(pairs: Path, two_sets: Path, tmp_path: Path) -> None:
    with pytest.raises(OrchardError, match=r"pictures have no pair: A/A0.png: no picture of its name on side B"):
        train("pix2pix_nano", str(two_sets), tmp_path / "1", architecture=PIX2PIX, **SMALL)
    with pytest.raises(UsageError, match=r"setting 'direction': this model learns both; leave it out"):
        train("cyclegan_nano", str(two_sets), tmp_path / "2", architecture=CYCLEGAN, direction="BtoA", **SMALL)
    with pytest.raises(UsageError, match=r"image_size is 24, expected a multiple of 16"):
        train("pix2pix_nano", str(pairs), tmp_path / "3", architecture=PIX2PIX, **SMALL | {"image_size": 24})
    small = {**SMALL, "data.validation_fraction": 0.01, "data.test_fraction": 0}
    with pytest.raises(OrchardError, match=r"the validation split has one picture of side [AB], and a distance"):
        train("cyclegan_nano", str(two_sets), tmp_path / "4", architecture=CYCLEGAN, **small)


# Answers


def test_pictures_of_any_size_become_files_and_a_sheet(paired_run: Path, tmp_path: Path) -> None:
    for name, size in (("wide", (50, 20)), ("high", (21, 40)), ("small", (7, 30))):
        save(tmp_path / f"in/{name}.png", Image.fromarray(np.zeros((*size[::-1], 3), np.uint8)))
    (tmp_path / "in/broken.png").write_bytes(b"no picture")
    found = [one.to_json() for one in answer(paired_run, [str(tmp_path / "in")], {"out": tmp_path / "out"})]
    sizes = {Path(one["picture"]).stem: one.get("size") for one in found}
    assert sizes == {"broken": None, "wide": [40, 16], "high": [16, 30], "small": [16, 69]}
    with Image.open(tmp_path / "out/wide_translated.png") as image, Image.open(tmp_path / "out/sheet.png") as sheet:
        assert image.size == (40, 16) and sheet.width == 3 * (2 * 128 + 4) + 2 * 2
    whole = [one.to_json() for one in answer(
        paired_run, [str(tmp_path / "in")], {"out": tmp_path / "kept", "keep_size": True}
    )]  # fmt: skip
    assert {Path(one["picture"]).stem: one.get("size") for one in whole} == {
        "broken": None, "wide": [50, 20], "high": [21, 40], "small": None,
    }  # fmt: skip
    said = next(one["error"] for one in whole if one["picture"].endswith("small.png"))
    assert said == "it is 7x30 pixels, and this network needs 9 a side; enlarge it"
    with pytest.raises(UsageError, match="is there already; name another folder"):
        list(answer(paired_run, [str(tmp_path / "in")], {"out": tmp_path / "out"}))


def test_both_directions_answer_and_export(unpaired_run: Path, two_sets: Path) -> None:
    image = two_sets / "A/A1.png"
    there, back = (pipeline(unpaired_run, direction=way)(image) for way in ("AtoB", "BtoA"))
    assert pipeline(unpaired_run)(image).tobytes() == there.tobytes() != back.tobytes()
    loaded = load(unpaired_run)
    model: Any = loaded.model
    for entry in entries(loaded):
        inputs = entry.inputs(3, torch.Generator().manual_seed(0))["images"]
        assert torch.equal(entry.module(inputs), model.translate(inputs, entry.name))


def test_a_picture_does_not_depend_on_its_padding(unpaired_run: Path) -> None:
    """At the model's own size nothing is mirrored: the answer is the network's."""
    model: Any = load(unpaired_run).model.eval()
    pixels = torch.randint(0, 256, (3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        expected = model.translate(pixels[None] / 127.5 - 1, "AtoB")[0]
    found = torch.from_numpy(np.array(pipeline(unpaired_run)(pixels))).permute(2, 0, 1)
    assert (found - (expected + 1) * 127.5).abs().max() < 0.51


@pytest.fixture(scope="module")
def attending_run(two_sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("attending") / "run"
    few = SMALL | {"max_steps": 2, "evaluate_steps": 2}
    train("ugatit_nano", str(two_sets), path, architecture={**UGATIT, "light": False}, **few, **SPLIT)
    return path


def test_a_run_with_attention_has_its_losses_and_shows_where_it_looked(attending_run: Path) -> None:
    with (attending_run / "log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    for column in ("loss", "generators_loss", "cycle_loss", "identity_loss", "attention_loss", "score_real"):
        assert float(rows[-1][column]), column
    page = (attending_run / "report.html").read_text()
    assert "where it looked: A" in page and "where the model looked, bright for much" in page


def test_heat_maps_become_files_and_what_a_model_cannot_do_is_one_line(
    attending_run: Path, unpaired_run: Path, two_sets: Path, tmp_path: Path
) -> None:
    save(tmp_path / "in/square.png", Image.open(two_sets / "A/A1.png"))
    save(tmp_path / "in/wide.png", Image.open(two_sets / "A/A2.png").resize((40, 20)))
    asked = {"out": tmp_path / "out", "heat": True}
    found = {Path(one["picture"]).stem: one for one in (
        one.to_json() for one in answer(attending_run, [str(tmp_path / "in")], asked)
    )}  # fmt: skip
    with Image.open(found["square"]["heat"]) as heat:
        assert heat.size == (16, 16) and len(set(heat.convert("RGB").getdata())) > 4
    assert found["wide"]["error"] == "it comes to 32x16 pixels, and this network takes 16x16 alone; crop it to a square"
    with pytest.raises(UsageError, match=r"takes 16x16 pixels alone; leave out the option 'keep_size'"):
        pipeline(attending_run, keep_size=True)
    with pytest.raises(UsageError, match=r"attends to nothing that it could show; leave out the option 'heat'"):
        pipeline(unpaired_run, heat=True)


# Official files


def test_one_official_file_with_all_networks_is_imported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = create_model("ugatit_nano", image_size=16, **UGATIT, light=False)
    theirs = export_official(model, "znxlwm")
    networks = dict.fromkeys(name.partition(".")[0] for name in theirs)
    assert set(networks) == {"genA2B", "genB2A", "disGA", "disGB", "disLA", "disLB"}
    file = {one: {name.partition(".")[2]: tensor for name, tensor in theirs.items() if name.startswith(one)}
            for one in networks}  # fmt: skip
    torch.save(file, tmp_path / "selfie2anime_params_latest.pt")
    import_checkpoint(
        "ugatit_light", tmp_path / "selfie2anime_params_latest.pt", tmp_path / "model",
        overrides={"image_size": 16, "blocks": 1, "global_layers": 4, "local_layers": 3},
    )  # fmt: skip
    found: Any = load(tmp_path / "model").model
    assert not found.config.light and found.config.width == 4
    assert all(torch.equal(one, found.state_dict()[name]) for name, one in model.state_dict().items())


def test_official_files_of_each_network_are_imported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = create_model("cyclegan_nano", **CYCLEGAN)
    theirs = export_official(model, "junyanz")
    files = {}
    for name in ("G_A", "G_B", "D_A", "D_B"):
        files[name] = tmp_path / f"latest_net_{name}.safetensors"
        save_file({key.removeprefix(f"{name}."): one for key, one in theirs.items() if key.startswith(f"{name}.")},
                  files[name])  # fmt: skip
    import_checkpoint("cyclegan_nano", str(files["G_B"]), tmp_path / "all", overrides=CYCLEGAN,
                      files=[files[name] for name in ("D_A", "G_A", "D_B")])  # fmt: skip
    got = load(tmp_path / "all").model.state_dict()
    assert all(torch.equal(one, got[name]) for name, one in model.state_dict().items())
    found = import_checkpoint("cyclegan_nano", str(files["G_A"]), tmp_path / "one", overrides=CYCLEGAN)
    assert "fresh networks: G_B, D_A, D_B" in str(found)
    got = load(tmp_path / "one").model.state_dict()
    name = "generators.AtoB.head.weight"
    assert torch.equal(got[name], model.state_dict()[name])
