"""Training, evaluating and using detectors: boxes move with their images, figures are COCO's, runs are exact."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.torch import load_file
from scene_files import write_scenes
from stopping import stopped_after
from torchvision.ops import box_convert

from orchard.app.evaluate import evaluate
from orchard.app.pipeline import pipeline
from orchard.app.train import resolve_training, train
from orchard.cli.train import show_figures
from orchard.data.annotated import resize, vary
from orchard.data.boxes.contracts import DetectionRecord, Objects, Relabelled
from orchard.data.boxes.loader import BoxLoader
from orchard.data.boxes.named import SceneBoxes
from orchard.data.boxes.settings import BoxAugmentSettings
from orchard.data.boxes.sources import open_boxes
from orchard.data.contracts import Preprocess
from orchard.data.counter_rng import uniforms
from orchard.data.scenes import THINGS, make_scene
from orchard.data.settings import DataSettings
from orchard.data.sizing import Sizing
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.models.detection.contract import Detections
from orchard.tasks.object_detection.answer import answer
from orchard.tasks.object_detection.job import Job, sizing_of
from orchard.tasks.object_detection.metrics import evaluate_boxes
from orchard.tasks.object_detection.objective import Predictions, SetPrediction, predict_split
from orchard.tasks.object_detection.settings import DetectionSettings, Options
from orchard.tasks.trunks import load_trunk
from orchard.weights.portable import Portable, architecture_of, save_portable

EVERYTHING = BoxAugmentSettings(
    flip=True, sides=(40, 48, 56), crop=0.5, crop_from=(60, 70), crop_sides=(30, 60), color=0.4
)
GREY = Preprocess((64, 80), 3, (0.5,) * 3, (0.25,) * 3)
SMALL: dict[str, Any] = {
    "architecture": {"queries": 6, "encoder_layers": 1, "decoder_layers": 2, "width": 32, "hidden": 32},
    "shorter_side": 32,
    "batch_size": 4,
    "max_steps": 6,
    "log_every": 2,
    "precision": "fp32",
    "augmentation": {"flip": True, "color": 0.2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen digit scenes as a set in the form of COCO; categories are numbered from 3."""
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A short training, and its metrics."""
    path = tmp_path_factory.mktemp("runs") / "run"
    return path, train("detr_nano", str(folder), path, **SMALL)


# Boxes move with their images


def marked(seed: int) -> tuple[torch.Tensor, Objects]:
    """An image of noise with two bright rectangles, each the colour of its label, and their boxes."""
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.integers(0, 60, (3, 90, 120), np.uint8))
    boxes = np.array([[10, 20, 40, 50], [70, 30, 110, 80]], np.float32)
    for label, (left, top, right, bottom) in enumerate(boxes.astype(int)):
        image[:, top:bottom, left:right] = 0
        image[label, top:bottom, left:right] = 250
    return image, Objects(boxes, np.array([0, 1]), np.zeros(2, bool))


@pytest.mark.parametrize(
    "settings",
    [
        BoxAugmentSettings(flip=True),
        BoxAugmentSettings(sides=(40, 64)),
        BoxAugmentSettings(crop=1.0, crop_sides=(50, 80)),
        EVERYTHING.model_copy(update={"color": 0.0}),
    ],
)
def test_boxes_stay_around_their_objects(settings: BoxAugmentSettings) -> None:
    kept = 0
    for index, row in enumerate(uniforms(0, 0, np.arange(24))):
        image, objects = vary(*marked(index), settings, row, Sizing(60, None))
        height, width = image.shape[1:]
        assert (objects.boxes >= 0).all() and (objects.boxes <= [width, height, width, height]).all()
        for box, label in zip(objects.boxes, objects.labels, strict=True):
            rows, columns = np.nonzero(np.asarray(image[label] > 150))
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(box, found, atol=1.6)  # of an edge between two pixels, one may be dark
            kept += 1
    assert kept > 20


def test_images_are_resized_as_detr_s_code_does() -> None:
    """By hand: 800 and 1333 pixels of the paper, appendix A.4."""
    sizing = Sizing(800, 1333)
    assert sizing.of(480, 640) == (800, 1066) and sizing.of(640, 480) == (1066, 800)
    assert sizing.of(300, 900) == (444, 1332) and sizing.of(900, 300) == (1332, 444)
    assert Sizing(None, None).of(7, 5) == (7, 5) and Sizing(4, None).of(1, 1000) == (4, 4000)
    image, objects = resize(*marked(0), Sizing(45, None))
    assert image.shape == (3, 45, 60) and objects.boxes.tolist() == [[5, 10, 20, 25], [35, 15, 55, 40]]


def test_batches_are_pure_functions_and_padded() -> None:
    split = SceneBoxes("train", 0)

    def loader(rank: int = 0, world: int = 1) -> BoxLoader:
        return BoxLoader(split, GREY, Sizing(48, 80), EVERYTHING, batch_size=4, seed=3, rank=rank, world=world)

    whole = loader().batch(1, 5)
    again = next(loader().batches(1, 5))
    assert torch.equal(whole.images.values, again.images.values) and torch.equal(whole.boxes.values, again.boxes.values)
    assert whole.indices.min() >= len(split)  # of a set without end, the second epoch has new scenes
    for n, (boxes, labels) in enumerate(zip(whole.boxes.rows(), whole.labels.rows(), strict=True)):
        assert len(boxes) == len(labels) and ((boxes > 0) & (boxes <= 1)).all()
        height, width = (int(whole.images.mask[n].any(1 - axis).sum()) for axis in (0, 1))
        assert whole.images.mask[n, :height, :width].all() and whole.images.mask[n].sum() == height * width
        assert not whole.images.values[n][:, ~whole.images.mask[n]].any()
    parts = [loader(rank, 2).batch(1, 5) for rank in range(2)]
    assert torch.equal(torch.cat([part.indices for part in parts]), whole.indices)
    assert torch.equal(torch.cat([part.boxes.values for part in parts]), whole.boxes.values)


def test_evaluation_sees_every_image_once_and_alone() -> None:
    loader = BoxLoader(SceneBoxes("test", 0), GREY, Sizing(None, None), None)
    batches = [batch for batch, _ in zip(loader.batches(0), range(3), strict=False)]
    assert [int(batch.indices) for batch in batches] == [0, 1, 2]
    for batch in batches:
        scene = make_scene(0, "test", int(batch.indices))
        assert batch.images.mask.all() and batch.images.values.shape[1:] == scene.image.shape
        assert torch.equal(batch.images.values, GREY.normalise(scene.image[None]))
        assert batch.sizes.tolist() == [list(scene.image.shape[1:])]


def test_ignored_objects_are_not_learned() -> None:
    class WithCrowd(SceneBoxes):
        """The first object of every scene is a crowd."""

        def record(self, index: int) -> DetectionRecord:
            found = super().record(index)
            ignored = np.arange(len(found.objects.labels)) == 0
            return replace(found, objects=replace(found.objects, ignored=ignored))

    for augment in (None, BoxAugmentSettings()):
        batch = BoxLoader(WithCrowd("train", 0), GREY, Sizing(None, None), augment).batch(0, 0)
        objects = SceneBoxes("train", 0).objects(int(batch.indices))
        assert batch.labels.values.tolist() == objects.labels[1:].tolist()
        assert batch.boxes.values.shape == (len(objects.labels) - 1, 4)


# Figures


def said(split: SceneBoxes, count: int, change: Any = None) -> Predictions:
    """Answers that are all true, six for each image, those without an object with a probability of zero."""
    scores, labels, boxes = torch.zeros(count, 6), torch.zeros(count, 6, dtype=torch.int64), torch.zeros(count, 6, 4)
    for n in range(count):
        objects = split.objects(n)
        scores[n, : len(objects.labels)] = 0.9
        labels[n, : len(objects.labels)] = torch.from_numpy(objects.labels)
        boxes[n, : len(objects.labels)] = torch.from_numpy(objects.boxes)
    found = Predictions(scores, labels, boxes, torch.zeros(count), torch.arange(count))
    return change(found) if change else found


def test_true_answers_have_full_precision_and_wrong_ones_none() -> None:
    split, classes = SceneBoxes("validation", 0), tuple("0123456789")
    best = evaluate_boxes(said(split, 12), split, classes)
    assert best.figures["ap"] == best.figures["ap50"] == best.figures["ar100"] == pytest.approx(1)
    assert sum(row.count for row in best.classes) == sum(len(split.objects(n).labels) for n in range(12))
    assert all(precision == pytest.approx(1) for _, precision in best.curves["0.5"])

    def renamed(p: Predictions) -> Predictions:
        return Predictions(p.scores, (p.labels + 1) % 10, p.boxes, p.losses, p.indices)

    assert evaluate_boxes(said(split, 12, renamed), split, classes).figures["ap"] < 0.1

    def shifted(p: Predictions) -> Predictions:
        sides = p.boxes[..., 2:] - p.boxes[..., :2]
        return Predictions(p.scores, p.labels, p.boxes + 0.15 * torch.cat([sides, sides * 0], -1), p.losses, p.indices)

    loose = evaluate_boxes(said(split, 12, shifted), split, classes).figures
    assert loose["ap50"] == pytest.approx(1) and loose["ap75"] < 0.5 and 0.3 < loose["ap"] < 0.7


def test_predictions_are_those_of_each_image_alone() -> None:
    """The same, however many images stand in the split."""
    torch.manual_seed(0)
    model = create_model("detr_nano", queries=5).eval()
    loader = BoxLoader(SceneBoxes("test", 0), GREY, Sizing(64, None), None)
    few = [loader.batch(0, n) for n in range(3)]
    objective = SetPrediction(DetectionSettings())
    together = predict_split(model, few, objective)
    alone = Predictions.merge([predict_split(model, [batch], objective) for batch in reversed(few)])
    for name, column in vars(together).items():
        assert torch.equal(column, getattr(alone, name)), name
    assert together.boxes.shape == (3, 5, 4) and together.losses.isfinite().all()


# Runs


def test_stopped_and_resumed_ends_in_the_same_bits(
    folder: Path, run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with stopped_after(3, 6):
        train("detr_nano", str(folder), tmp_path / "parts", **SMALL)
    again = train("detr_nano", str(folder), tmp_path / "parts", **SMALL)
    assert again["test"] == run[1]["test"]
    one, two = (load_file(path / "model" / "model.safetensors") for path in (run[0], tmp_path / "parts"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_has_figures_a_model_and_a_report(folder: Path, run: tuple[Path, dict[str, Any]]) -> None:
    path, metrics = run
    assert {"loss", "ap", "ap50", "ap75", "ar1", "ar10", "ar100"} <= metrics["test"].keys()
    assert 0 <= metrics["test"]["ap"] <= metrics["test"]["ap50"] <= 1 and metrics["test"]["loss"] > 0
    loaded = load(path)
    assert loaded.classes == tuple(f"digit {n}" for n in range(10))
    assert loaded.facts == {"shorter_side": 32, "longest_side": 53}
    assert evaluate(path, str(folder), "test")["test"] == pytest.approx(metrics["test"], abs=1e-5)
    page = (path / "report.html").read_text()
    for words in ("Precision and recall", "Per-class metrics", "Errors by kind", "Most errors", "digit 3", "AP50"):
        assert words in page
    assert page.count("data:image/jpeg") >= 4
    log = (path / "log.csv").read_text().splitlines()
    assert {"label_loss", "giou_loss", "class_error", "ap50"} <= set(log[0].split(","))


def test_figures_are_those_of_pycocotools_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Answers near each scene's digits, and some elsewhere; the least recall that counts is COCO's to the last bit."""
    split, chance = SceneBoxes("test", 0), np.random.default_rng(0)
    known, rows, answers = COCO(), [], []
    known.dataset = {
        "images": [{"id": n + 1} for n in range(12)], "categories": [{"id": n} for n in range(10)], "annotations": [],
    }  # fmt: skip
    for n in range(12):
        objects = split.objects(n)
        for box, label in zip(
            box_convert(torch.from_numpy(objects.boxes), "xyxy", "xywh"), objects.labels, strict=True
        ):
            known.dataset["annotations"].append({
                "id": len(known.dataset["annotations"]) + 1, "image_id": n + 1, "category_id": int(label), "iscrowd": 0,
                "bbox": box.tolist(), "area": float(box[2] * box[3]),
            })  # fmt: skip
        near = objects.boxes.repeat(3, 0) + chance.normal(0, 1.5, (3 * len(objects.boxes), 4)).astype(np.float32)
        found, labels = torch.from_numpy(near), objects.labels.repeat(3)
        scores = chance.uniform(0.1, 1, len(near)).astype(np.float32)
        answers.append((found, torch.from_numpy(labels), torch.from_numpy(scores)))
        boxes = box_convert(found, "xyxy", "xywh").tolist()
        rows += [
            {"image_id": n + 1, "category_id": int(label), "bbox": box, "score": float(score)}
            for label, box, score in zip(labels, boxes, scores, strict=True)
        ]
    known.createIndex()
    evaluation = COCOeval(known, known.loadRes(rows), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    most = max(len(labels) for _, labels, _ in answers)
    said = Predictions(
        scores=torch.stack([F.pad(scores, (0, most - len(scores)), value=-1) for _, _, scores in answers]),
        labels=torch.stack([F.pad(labels, (0, most - len(labels))) for _, labels, _ in answers]),
        boxes=torch.stack([F.pad(boxes, (0, 0, 0, most - len(boxes))) for boxes, _, _ in answers]),
        losses=torch.zeros(12), indices=torch.arange(12),
    )  # fmt: skip
    ours = evaluate_boxes(said, split, THINGS).figures
    names = [f"{what}{of}" for what in ("ap", "ar") for of in ("_small", "_medium", "_large")]
    names = ["ap", "ap50", "ap75", *names[:3], "ar1", "ar10", "ar100", *names[3:]]
    theirs = {name: value for name, value in zip(names, evaluation.stats, strict=True) if value >= 0}
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-6)
    assert 0.2 < ours["ap"] < 0.9


def test_evaluation_has_a_table_of_classes_and_of_errors(
    folder: Path, run: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate(run[0], str(folder), "test", {"evaluation.threshold": 0.0})
    split = open_boxes(str(folder), DataSettings()).splits["test"]
    counts = np.bincount(np.concatenate([split.objects(n).labels for n in range(4)]), minlength=10)
    rows = {row["class"]: row for row in found["tables"]["classes"]}
    assert {name: row["objects"] for name, row in rows.items()} == {
        f"digit {n}": count for n, count in enumerate(counts.tolist()) if count
    }
    assert np.mean([row["ap"] for row in rows.values()]) == pytest.approx(found["test"]["ap"], abs=1e-5)
    errors = {row["error"]: row["count"] for row in found["tables"]["errors"]}
    assert list(errors) == ["classification", "localisation", "both", "duplicate", "background", "missed"]
    assert 4 * 6 - counts.sum() <= sum(errors.values()) - errors["missed"] <= 4 * 6  # of six queries an image
    few = evaluate(run[0], str(folder), "test", {"evaluation.threshold": 1.0})["tables"]["errors"]
    assert {row["error"]: row["count"] for row in few} == {**dict.fromkeys(errors, 0), "missed": counts.sum()}
    with pytest.raises(UsageError, match=r"evaluation.treshold.*did you mean threshold"):
        evaluate(run[0], str(folder), "test", {"evaluation.treshold": 0.5})
    show_figures(found)
    shown = capsys.readouterr().out
    assert "digit 3" in shown and "an object without any of these answers" in shown


def test_a_model_is_evaluated_on_sets_that_number_its_classes_otherwise(
    folder: Path, run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """By the names of classes; of an official checkpoint, by the numbers of COCO's categories."""
    path, metrics = run
    for table in folder.glob("*.json"):
        content = json.loads(table.read_text())
        ids = {one["id"]: 40 - one["id"] for one in content["categories"]}
        content["categories"] = [{"id": ids[one["id"]], "name": one["name"]} for one in content["categories"]]
        content["annotations"] = [one | {"category_id": ids[one["category_id"]]} for one in content["annotations"]]
        (tmp_path / table.name).write_text(json.dumps(content))
    for split in ("train", "validation", "test"):
        (tmp_path / split).symlink_to(folder / split)
    assert open_boxes(str(tmp_path), DataSettings()).classes[0] == "digit 9"
    assert evaluate(path, str(tmp_path), "test")["test"] == pytest.approx(metrics["test"], abs=1e-5)
    model = create_model("detr_nano", num_classes=13, queries=3)
    numbered = Portable("detr_nano", architecture_of(model), "object-detection", tuple(map(str, range(13))))
    save_portable(tmp_path / "numbered", model, numbered.__class__(**vars(numbered) | {"preprocess": GREY.to_json()}))
    assert evaluate(tmp_path / "numbered", str(folder), "test")["test"]["loss"] > 0
    few = create_model("detr_nano", num_classes=4, queries=3)
    about = Portable("detr_nano", architecture_of(few), "object-detection", tuple("abcd"), GREY.to_json())
    save_portable(tmp_path / "few", few, about)
    with pytest.raises(OrchardError, match="does not know the class '3'"):
        evaluate(tmp_path / "few", str(folder), "test")


def test_relabelled_splits_have_the_numbers_of_a_model() -> None:
    split = SceneBoxes("test", 0)
    other = Relabelled(split, [9 - n for n in range(10)])
    assert (other.objects(2).labels == 9 - split.objects(2).labels).all() and len(other) == len(split)
    assert torch.equal(other.record(2).image, split.record(2).image) and other.key(2) == split.key(2)


def test_what_a_model_says_of_sizes() -> None:
    assert sizing_of({}, (800, 1066)) == Sizing(800, 1333)
    assert sizing_of({"shorter_side": None}, (800, 1066)) == Sizing(None, None)
    assert sizing_of({"shorter_side": 64, "longest_side": 80}, (800, 1066)) == Sizing(64, 80)


# Trunks


def test_a_trunk_begins_with_a_classifier_s_weights(tmp_path: Path) -> None:
    shape = {"depths": (1, 1), "widths": (8, 16), "stem_width": 8, "in_channels": 3}
    torch.manual_seed(0)
    classifier = create_model("resnet_nano", **shape)
    about = Portable("resnet_nano", architecture_of(classifier), "image-classification", tuple("0123456789"))
    save_portable(tmp_path / "classifier", classifier, about)
    for frozen in (True, False):
        model: Any = create_model("detr_nano", trunk_settings=shape, frozen_norm=frozen)
        load_trunk(model, tmp_path / "classifier")
        state = classifier.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.trunk.state_dict().items())
    other = create_model("detr_nano", trunk_settings=shape | {"widths": (8, 24)})
    with pytest.raises(OrchardError, match=r"the trunk needs 'layers.1.0.conv1.weight' of shape"):
        load_trunk(other, tmp_path / "classifier")
    with pytest.raises(UsageError, match="holds a resnet_nano, the trunk is a lenet5"):
        another = create_model("detr_nano", trunk="lenet5", trunk_settings={"in_channels": 3})
        load_trunk(another, tmp_path / "classifier")


def test_parts_can_be_kept_as_they_are_or_learn_slower(folder: Path, tmp_path: Path) -> None:
    changed = SMALL | {"freeze": ["trunk.conv1"], "optimizer.scales.trunk": 0.1, "max_steps": 1}
    resolved, _ = resolve_training("detr_nano", str(folder), changed)
    job = Job(resolved, torch.device("cpu"))
    assert not job.model.trunk.conv1.weight.requires_grad  # type: ignore[union-attr]
    from orchard.training.optim import build_optimizer

    optimizer = build_optimizer(job.model, job.settings.optimizer)
    scales = {id(p): group["scale"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in job.model.named_parameters():
        if parameter.requires_grad:
            assert scales[id(parameter)] == (0.1 if name.startswith("trunk") else 1.0), name
    with pytest.raises(UsageError, match="no parameter's name begins with 'nothing'"):
        Job(resolve_training("detr_nano", str(folder), SMALL | {"freeze": ["nothing"]})[0], torch.device("cpu"))


# Answers


def test_answers_in_python_on_the_command_line_and_on_images(
    folder: Path, run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    detector = pipeline(run[0])
    (tmp_path / "bad.png").write_bytes(b"no image")
    paths = [str(folder / "test" / "test0.png"), str(tmp_path / "bad.png")]
    good, bad = detector(paths, threshold=0.0)
    assert len(good.things) == 6 and bad.error.startswith("not a picture") and not bad.things
    assert [thing.score for thing in good.things] == sorted((thing.score for thing in good.things), reverse=True)
    with Image.open(paths[0]) as image:
        width, height = image.size
    for thing in good.things:
        left, top, right, bottom = thing.box
        assert 0 <= left <= right <= width and 0 <= top <= bottom <= height
        assert thing.label in detector.loaded.classes
    options = Options(threshold=good.things[2].score, draw=tmp_path / "drawn")
    first, second = answer(run[0], [*paths[:1], *paths[:1]], options, lambda line: None)
    assert len(first.to_json()["objects"]) == 3 and first.boxes == second.boxes
    assert [Path(one.drawn).name for one in (first, second)] == ["test0.jpg", "test0-2.jpg"]
    with Image.open(first.drawn) as drawn:
        assert drawn.size == (width * 5, height * 5)  # enlarged, so that words fit
    assert first.cells()[1] == "3" and first.cells()[2].count("; ") == 2
    (wrong,) = answer(run[0], paths[1:], options, lambda line: None)
    assert wrong.to_json() == {"picture": paths[1], "error": bad.error}


def test_answers_are_cut_out_and_written_as_coco_which_is_data_again(
    folder: Path, run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    image = folder / "test" / "test0.png"
    (tmp_path / "bad.png").write_bytes(b"no image")
    (found,) = pipeline(run[0])(image, threshold=0.0)
    table = tmp_path / "said" / "instances_test.json"
    options = Options(threshold=found.things[2].score, crops=tmp_path / "crops", coco=table)
    first, bad = answer(run[0], [str(image), str(tmp_path / "bad.png")], options, lambda line: None)
    crops = [Path(one["crop"]) for one in first.to_json()["objects"]]
    assert [crop.name for crop in crops] == ["test0-1.png", "test0-2.png", "test0-3.png"] and not bad.crops
    left, top, right, bottom = found.things[0].box
    with Image.open(crops[0]) as cut, Image.open(image) as whole:
        edges = int(left), int(top), int(np.ceil(right)), int(np.ceil(bottom))
        assert cut.mode == "RGB" and np.array_equal(np.array(cut), np.array(whole.crop(edges)))
    assert first.columns() == ["picture", "count", "objects", "drawn", "error"] and len(first.cells()) == 5
    (table.parent / "test0.png").write_bytes(image.read_bytes())
    data = open_boxes(str(table.parent), DataSettings())
    written = json.loads(table.read_text())["annotations"]
    assert data.classes == tuple(f"digit {n}" for n in range(10)) and "segmentation" not in written[0]
    expected = [thing.box for thing in found.things[:3] if thing.area]
    np.testing.assert_allclose(data.splits["test"].objects(0).boxes, expected, atol=1e-3)
    assert [one["score"] for one in written] == [thing.score for thing in found.things[:3] if thing.area]


def test_answers_are_those_of_evaluation(folder: Path, run: tuple[Path, dict[str, Any]]) -> None:
    stored = load_file(run[0] / "evaluation" / "test.safetensors")
    answers = pipeline(run[0])(sorted((folder / "test").glob("*.png")), threshold=0.0)
    for n, one in enumerate(answers):
        expected = stored["scores"][n].sort(descending=True).values.tolist()
        assert [thing.score for thing in one.things] == pytest.approx(expected, abs=1e-6)


def test_a_model_of_another_task_finds_no_objects(tmp_path: Path) -> None:
    from orchard.tasks.object_detection.pipeline import ObjectDetector

    model = create_model("lenet5")
    about = Portable("lenet5", architecture_of(model), "image-classification", tuple("0123456789"))
    save_portable(tmp_path / "lenet", model, about)
    with pytest.raises(UsageError, match="is for image-classification; objects are found by object-detection"):
        ObjectDetector(load(tmp_path / "lenet"))


def test_settings_that_do_not_exist_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"detection.giou_wight.*did you mean detection.giou_weight"):
        resolve_training("detr_nano", str(folder), {"detection.giou_wight": 1.0})
    with pytest.raises(UsageError, match="has no train split; it has test"):
        resolved, _ = resolve_training("detr_nano", str(folder / "instances_test.json"), {})
        Job(resolved, torch.device("cpu"))


def test_boxes_of_a_detector_are_shares_of_its_image_without_padding() -> None:
    """What a loader says of objects and what postprocessing makes of answers are inverse."""
    loader = BoxLoader(SceneBoxes("train", 0), GREY, Sizing(48, None), BoxAugmentSettings(), batch_size=3)
    batch = loader.batch(0, 0)
    for n, index in enumerate(batch.indices.tolist()):
        shares = batch.boxes.rows()[n][None]
        found = Detections(torch.zeros(1, shares.shape[1], 11), shares)
        (answer_,) = found.found(batch.sizes[n : n + 1])
        np.testing.assert_allclose(answer_.boxes, SceneBoxes("train", 0).objects(index).boxes, atol=1e-3)
