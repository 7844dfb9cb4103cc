"""Training, evaluating and using networks that segment: masks move with their images, figures are right, runs exact."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from commands import orchard
from PIL import Image
from safetensors.torch import load_file
from stopping import stopped_after

from orchard.app.evaluate import evaluate
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.data.contracts import Preprocess
from orchard.data.counter_rng import uniforms
from orchard.data.masks.augment import vary
from orchard.data.masks.contracts import IGNORED
from orchard.data.masks.loader import MaskLoader
from orchard.data.masks.named import SceneMasks
from orchard.data.masks.settings import MaskAugmentSettings
from orchard.data.scenes import make_scene
from orchard.data.sizing import Sizing
from orchard.errors import OrchardError, UsageError
from orchard.models import create_model
from orchard.models.segmentation.contract import segment
from orchard.models.segmentation.fcn import bilinear_kernel
from orchard.tasks.known_classes import fine_tuned_model
from orchard.tasks.semantic_segmentation.losses import cross_entropy, dice_coefficient, dice_loss
from orchard.tasks.semantic_segmentation.metrics import boundary_f1, confusion, figures_of, iou_of
from orchard.tasks.semantic_segmentation.objective import (
    Predictions,
    SemanticSegmentation,
    balanced_weights,
    predict_split,
)
from orchard.tasks.trunks import load_trunk
from orchard.weights.golden import read_golden
from orchard.weights.official import export_official, read_official
from orchard.weights.portable import Portable, architecture_of, save_portable

PLAIN = Preprocess((32, 40), 3, (0.5,) * 3, (0.25,) * 3)
EVERYTHING = MaskAugmentSettings(flip=True, scale=(0.5, 2.0))
SMALL: dict[str, Any] = {
    "architecture": {"widths": (4, 8)},
    "shorter_side": 32,
    "crop_size": (32, 32),
    "batch_size": 4,
    "max_steps": 4,
    "log_every": 2,
    "precision": "fp32",
    "augmentation": {"flip": True, "color": 0.2},
    "segmentation": {"class_weights": "balanced", "dice_weight": 0.5},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve digit scenes as images and masks of three classes: background, low digits, high digits."""
    root = tmp_path_factory.mktemp("scenes")
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        for name in ("images", "masks"):
            (root / name / split).mkdir(parents=True)
        for n in range(count):
            record = SceneMasks({"val": "validation"}.get(split, split), 0).record(n)
            Image.fromarray(record.image.permute(1, 2, 0).numpy()).save(root / "images" / split / f"{n}.png")
            mask = (record.mask > 0).byte() + (record.mask > 5).byte()
            mask[:3] = IGNORED
            Image.fromarray(mask.numpy()).save(root / "masks" / split / f"{n}.png")
    (root / "classes.txt").write_text("ground\nlow\nhigh 250 0 0\n")
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("runs") / "run"
    return path, train("unet_nano", str(folder), path, **SMALL)


# Masks move with their images


@pytest.mark.parametrize(
    "settings", [MaskAugmentSettings(flip=True), MaskAugmentSettings(scale=(0.5, 2.0)), EVERYTHING]
)
def test_masks_follow_their_images(settings: MaskAugmentSettings) -> None:
    """Of an image whose halves have the colours of their classes, whatever is cut out of it."""
    mask = torch.zeros(40, 60, dtype=torch.uint8)
    mask[10:, 20:] = 1
    image = torch.stack([mask * 200, 200 - mask * 200, mask * 0 + 7])
    seen = set()
    for row in uniforms(0, 0, np.arange(16)):
        cut, moved = vary(image, mask, settings, row, Sizing(40, None), (32, 48), (1, 2, 3))
        assert cut.shape == (3, 32, 48) and moved.shape == (32, 48)
        padding = moved == IGNORED
        assert (cut[:, padding] == torch.tensor([[1], [2], [3]])).all()
        wrong = ((cut[0] > 100) != (moved == 1)) & ~padding  # an edge between two pixels may fall to either side
        assert wrong.float().mean() < 0.03 and (cut[2][~padding] == 7).all()
        seen.add((float((moved == 1).float().mean()), bool(padding.any())))
    assert len(seen) > 1


def test_batches_are_pure_functions_of_seed_epoch_and_number() -> None:
    def loader(rank: int = 0, world: int = 1) -> MaskLoader:
        return MaskLoader(
            SceneMasks("train", 0), PLAIN, Sizing(40, None), (32, 40), EVERYTHING, batch_size=4, seed=3, rank=rank,
            world=world,
        )  # fmt: skip

    whole, again = loader().batch(1, 5), next(loader().batches(1, 5))
    assert torch.equal(whole.images, again.images) and torch.equal(whole.masks, again.masks)
    assert whole.images.shape == (4, 3, 32, 40) and whole.masks.dtype == torch.int64
    assert whole.indices.min() >= len(SceneMasks("train", 0))  # the second epoch has new scenes
    parts = [loader(rank, 2).batch(1, 5) for rank in range(2)]
    assert torch.equal(torch.cat([part.masks for part in parts]), whole.masks)


def test_evaluation_sees_images_whole_and_one_by_one() -> None:
    """What is said of an image is the same beside others and alone, and masks keep the size that is stored."""
    loader = MaskLoader(SceneMasks("test", 0), PLAIN, Sizing(40, None), (32, 40), None)
    few = [loader.batch(0, n) for n in range(3)]
    for n, batch in enumerate(few):
        assert batch.masks.shape[1:] == make_scene(0, "test", n).image.shape[1:] and min(batch.images.shape[2:]) == 40
    model = create_model("unet_nano", widths=(4, 8)).eval()
    together = predict_split(model, few, SemanticSegmentation(), boundaries=True)
    alone = [predict_split(model, [batch], SemanticSegmentation(), boundaries=True) for batch in reversed(few)]
    for name, column in vars(Predictions.merge(alone)).items():
        assert torch.equal(column, getattr(together, name)), name
    assert together.matrix.sum() == sum(batch.masks.numel() for batch in few)


# Losses and metrics


def test_dice_is_that_of_the_published_code(golden: Path) -> None:
    case = read_golden(golden / "unet" / "dice")
    for predicted, stored in (("p", "p_loss_multi"), ("p_empty", "empty_loss_multi")):
        ours = 1 - dice_coefficient(case.given(predicted), case.given("t"))
        assert ours.item() == pytest.approx(case.computed(stored).item(), abs=1e-6)
    assert dice_coefficient(torch.zeros(2, 3), torch.zeros(2, 3)) == 1


def test_ignored_pixels_are_not_learned() -> None:
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    masks = torch.randint(0, 3, (2, 4, 5))
    masks[:, :2] = IGNORED
    for loss in (cross_entropy, dice_loss):
        (gradient,) = torch.autograd.grad(loss(logits, masks), logits)
        assert not gradient[:, :, :2].any() and gradient[:, :, 2:].any()
        kept = loss(logits[:, :, 2:], masks[:, 2:])
        assert torch.allclose(loss(logits, masks), kept)
        assert loss(logits, torch.full_like(masks, IGNORED)).isfinite()
    weights = balanced_weights([30, 10, 0])
    assert weights.tolist() == pytest.approx([20 / 30, 2.0, 0.0])
    expected = torch.nn.functional.cross_entropy(logits, masks, weights, ignore_index=IGNORED)
    assert torch.allclose(cross_entropy(logits, masks, weights), expected)


def test_figures_are_those_of_the_published_code(golden: Path) -> None:
    """Pixel accuracy, mean accuracy and mean IU of wkentaro/pytorch-fcn."""
    case = read_golden(golden / "fcn" / "bilinear_kernel")
    truth, said = case.given("label_true").long(), case.given("label_pred").long()
    kept = (truth >= 0) & (truth < 6)
    found = figures_of(confusion(truth.where(kept, IGNORED), said, 6))
    ours = [found[name] for name in ("pixel_accuracy", "mean_accuracy", "miou")]
    assert ours == pytest.approx(case.computed("accuracy_scores")[:3].tolist(), abs=1e-9)


def test_iou_by_hand() -> None:
    truth, said = torch.tensor([[0, 0, 1, IGNORED]]), torch.tensor([[0, 1, 1, 1]])
    matrix = confusion(truth, said, 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert iou_of(matrix)[:2].tolist() == [0.5, 0.5] and iou_of(matrix)[2].isnan()
    assert figures_of(matrix) == pytest.approx({"miou": 0.5, "pixel_accuracy": 2 / 3, "mean_accuracy": 0.75})


def slow_boundary_f1(truth: np.ndarray, said: np.ndarray) -> float:
    """The definition, pixel by pixel."""
    reach, scores = 0.0075 * np.hypot(*truth.shape), []
    for number in np.unique(truth):
        edges = []
        for mask in (truth == number, said == number):
            whole = np.pad(mask, 1, constant_values=True)  # the edge of the image is no boundary
            sides = whole[:-2, 1:-1] & whole[2:, 1:-1] & whole[1:-1, :-2] & whole[1:-1, 2:]
            edges.append(np.argwhere(mask & ~sides))
        near = np.hypot(*(edges[0][:, None] - edges[1][None]).transpose(2, 0, 1)) <= reach
        precision, recall = near.any(0).mean(), near.any(1).mean()
        scores.append(2 * precision * recall / (precision + recall))
    return float(np.mean(scores))


def test_boundary_f1_is_as_defined() -> None:
    """A square, in an image whose diagonal makes the tolerance 1.06 pixels."""
    truth = np.zeros((100, 100), np.uint8)
    truth[20:60, 20:60] = 1
    assert boundary_f1(truth, truth) == boundary_f1(truth, np.roll(truth, 1, 1)) == 1
    far = np.roll(truth, 3, 1)
    assert boundary_f1(truth, far) == pytest.approx(slow_boundary_f1(truth, far)) and boundary_f1(truth, far) < 0.6
    assert boundary_f1(truth, truth * 0) == 0
    hidden = np.where(np.arange(100)[:, None] < 70, IGNORED, truth).astype(np.uint8)
    assert np.isnan(boundary_f1(hidden, truth))  # where the square was nothing is asked


# Networks


def test_the_papers_unet_has_the_sizes_of_its_figure() -> None:
    with torch.device("meta"):
        model = create_model("unet")
        assert model(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    small = create_model("unet", widths=(2, 3, 4)).eval()
    assert small.config.margin == 20
    images = torch.randn(1, 1, 61, 70)
    whole = segment(small, images)
    assert whole.shape == (1, 2, 61, 70)
    middle = small(images[:, :, :60, :68])  # what owes nothing to the border is the same
    assert middle.shape == (1, 2, 20, 28)
    torch.testing.assert_close(whole[:, :, 20:40, 20:48], middle)
    with pytest.raises(ValueError, match="expected pictures of 44 pixels a side and multiples of 4 more"):
        small(images)
    with pytest.raises(ValueError, match="to be mirrored"):
        segment(small, images[:, :, :20])


def test_enlarging_begins_bilinear(golden: Path) -> None:
    case = read_golden(golden / "fcn" / "bilinear_kernel")
    for name in ("kernel_3", "kernel_4", "kernel_16", "kernel_32", "kernel_64"):
        stored = case.computed(name)
        torch.testing.assert_close(bilinear_kernel(len(stored), stored.shape[-1]), stored)


def test_fcn_takes_a_classifier_whole(tmp_path: Path) -> None:
    """Hidden layers become convolutions: on a map as large as they knew they say the same."""
    small: dict[str, Any] = {"depths": (1, 1), "widths": (4, 6), "pool_size": 3, "hidden": 8, "image_size": 12}
    vgg = create_model("vgg_nano", in_channels=3, **small).eval()
    about = Portable("vgg_nano", architecture_of(vgg), "image-classification", tuple("0123456789"), PLAIN.to_json())
    save_portable(tmp_path, vgg, about)
    fcn = create_model(
        "fcn_nano", trunk_settings=small, skips=1, hidden=8, kernel=3, padding=4, image_size=12
    ).eval()  # fmt: skip
    load_trunk(fcn, tmp_path)
    x = torch.randn(1, 6, 3, 3)
    torch.testing.assert_close(fcn.fc7(fcn.fc6(x).relu()).flatten(1), vgg.fc2(vgg.fc1(x.flatten(1)).relu()))
    with pytest.raises(ValueError, match="the trunk is a VGG"):
        create_model("fcn_nano", trunk="resnet_nano", trunk_settings={})
    with pytest.raises(ValueError, match="padding is at least 2"):
        create_model("fcn_nano", padding=1)


def test_official_files_say_how_many_classes_and_heads_they_have() -> None:
    small = {"widths": (4, 6, 8, 10, 10)}
    given: dict[str, Any] = {"trunk_settings": small, "hidden": 16, "image_size": 64}
    theirs = export_official(create_model("fcn8s", num_classes=4, **given), "official")
    assert theirs["upscore8.weight"].shape == (4, 4, 16, 16) and theirs["score_pool3.weight"].shape == (4, 8, 1, 1)
    found = read_official("fcn8s", theirs, None, given)
    assert vars(found.model.config)["num_classes"] == 4 and found.about.preprocess["std"] == (1 / 255,) * 3
    given = {"trunk_settings": {"depths": (1,) * 4, "widths": (4, 4, 8, 8), "stem_width": 4, "dilated_stages": 2}}
    for auxiliary in (False, True):
        model = create_model("fcn_resnet50", num_classes=6, auxiliary=auxiliary, **given)
        found = read_official("fcn_resnet50", export_official(model, "torchvision"), None, given)
        assert vars(found.model.config)["num_classes"] == 6 and vars(found.model.config)["auxiliary"] == auxiliary


def test_scores_of_known_classes_are_kept_and_kernels_begin_anew(tmp_path: Path) -> None:
    before = create_model("fcn_nano", num_classes=3)
    head: Any = before.head
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
    about = Portable("fcn_nano", architecture_of(before), "semantic-segmentation", tuple("abc"), PLAIN.to_json())
    save_portable(tmp_path, before, about)
    start = SimpleNamespace(model="fcn_nano", start_from=str(tmp_path))
    for classes in ("ca", "cba"):
        model: Any = fine_tuned_model(start, {"num_classes": len(classes)}, tuple(classes))
        for name in ("score", "skips.0", "skips.1"):
            ours, theirs = model.head.get_submodule(name), head.get_submodule(name)
            assert torch.equal(ours.weight[0], theirs.weight[2]) and torch.equal(ours.bias[-1], theirs.bias[0])
        for up in model.head.up:
            torch.testing.assert_close(up.weight.detach(), bilinear_kernel(len(classes), up.weight.shape[-1]))
        assert torch.equal(model.fc6.weight, before.fc6.weight)  # type: ignore[union-attr]


# Runs


def test_stopped_and_resumed_ends_in_the_same_bits(
    folder: Path, run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with stopped_after(2, 4):
        train("unet_nano", str(folder), tmp_path / "parts", **SMALL)
    again = train("unet_nano", str(folder), tmp_path / "parts", **SMALL)
    assert again["test"] == run[1]["test"]
    one, two = (load_file(path / "model" / "model.safetensors") for path in (run[0], tmp_path / "parts"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_has_figures_a_model_and_a_report(folder: Path, run: tuple[Path, dict[str, Any]]) -> None:
    path, metrics = run
    names = {"loss", "miou", "pixel_accuracy", "mean_accuracy", "boundary_f1", "iou_ground"}
    assert names <= metrics["test"].keys() and 0 <= metrics["test"]["miou"] <= 1
    page = (path / "report.html").read_text()
    for words in ("Per-class metrics", "Confusion matrix", "Worst images", "Best images", "#fa0000", "Boundary F1"):
        assert words in page
    asked = evaluate(path, str(folder), "test")["test"]
    del metrics["test"]["loss"], asked["loss"]  # that of training has weights
    assert asked == pytest.approx(metrics["test"], abs=1e-6)
    assert "miou" in (path / "log.csv").read_text().splitlines()[0]


def test_predictions_become_masks_and_overlays(
    folder: Path, run: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = folder / "images" / "test" / "0.png"
    assert orchard("predict", run[0], image, "--out", tmp_path / "drawn", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert sum(found["shares"].values()) == pytest.approx(1) and set(found["shares"]) <= {"ground", "low", "high"}
    written, size = Image.open(found["mask"]), Image.open(image).size
    assert written.mode == "P" and written.size == size and Image.open(found["overlay"]).size == size
    assert written.getpalette()[6:9] == [250, 0, 0]  # type: ignore[index]
    (answer,) = pipeline(run[0])(np.array(Image.open(image)))
    assert np.array_equal(answer.mask, np.array(written)) and dict(answer.shares) == pytest.approx(found["shares"])
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert orchard("predict", run[0], tmp_path / "bad.png", image, "--csv", tmp_path / "answers.csv") == 1
    lines = (tmp_path / "answers.csv").read_text().splitlines()
    assert lines[0] == "picture,shares,mask,overlay,error" and "not a picture" in lines[1] and "ground" in lines[2]


def test_fine_tuning_keeps_the_classes_it_knows(
    folder: Path, run: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "classes.txt").write_text("floor\nlow\nhigh\n")
    fewer = {key: value for key, value in SMALL.items() if key not in ("max_steps", "architecture")}
    train("unet_nano", str(tmp_path), tmp_path / "run", start_from=str(run[0]), max_steps=1, **fewer)
    assert "the head goes on for low, high and is fresh for floor" in capsys.readouterr().err
    with pytest.raises(OrchardError, match="does not know the class 'floor'"):
        evaluate(run[0], str(tmp_path), "test")


def test_wrong_calls_are_named(folder: Path, tmp_path: Path) -> None:
    for settings, words in (
        ({"freeze": ("nothing",)}, "no parameter's name begins with 'nothing'"),
        ({"augmentation": {"scale": (2.0, 1.0)}}, "augmentation.scale goes from 2 to 1"),
        ({"trunk_from": str(tmp_path)}, str(tmp_path)),
        ({"crop_size": (4, 4)}, "setting 'crop_size': expected pictures of at least 8 pixels"),
    ):
        with pytest.raises((UsageError, OrchardError), match=words):
            train("unet_nano", str(folder), tmp_path / "run", **settings)
