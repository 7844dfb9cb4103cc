"""Training, evaluating and using panoptic models: qualities are panopticapi's, answers are files, runs are exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import orchard
from panoptic_files import write_segments
from PIL import Image
from safetensors.torch import load_file
from stopping import stopped_after
from torchmetrics.detection import PanopticQuality

from orchard.app.evaluate import evaluate
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.data.contracts import Preprocess
from orchard.data.panoptic.contracts import Segments
from orchard.data.panoptic.loader import PanopticLoader
from orchard.data.panoptic.named import SceneSegments
from orchard.data.panoptic.reading import read_ids
from orchard.data.panoptic.sources import open_panoptic
from orchard.data.settings import DataSettings
from orchard.data.sizing import Sizing
from orchard.errors import OrchardError, UsageError
from orchard.models import create_model
from orchard.tasks.object_detection.settings import DetectionSettings
from orchard.tasks.panoptic_segmentation.job import load_detector, things_of
from orchard.tasks.panoptic_segmentation.losses import mask_losses
from orchard.tasks.panoptic_segmentation.merging import Segmented, likely, merge
from orchard.tasks.panoptic_segmentation.metrics import compare, figures_of, qualities
from orchard.tasks.panoptic_segmentation.objective import PanopticSegmentation, Predictions, look, predict_split
from orchard.tasks.panoptic_segmentation.settings import PanopticSettings
from orchard.weights.portable import Portable, architecture_of, load_portable, save_portable

TINY: dict[str, Any] = {
    "trunk_settings": {"stem": "7x7", "stem_width": 8, "depths": (1, 1), "widths": (8, 16)},
    "queries": 6, "encoder_layers": 1, "decoder_layers": 2, "width": 32, "hidden": 32,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "architecture": TINY,
    "shorter_side": 32,
    "batch_size": 4,
    "max_steps": 6,
    "log_every": 2,
    "precision": "fp32",
    "augmentation": {"flip": True},
    "panoptic": {"threshold": 0.0},
    "data.workers": 0,
}
PLAIN = Preprocess((32, 40), 3, (0.5,) * 3, (0.25,) * 3)
THINGS = [True] * 10 + [False] * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_segments(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A short training, and its metrics."""
    path = tmp_path_factory.mktemp("runs") / "run"
    return path, train("detr_panoptic_nano", str(folder), path, **SMALL)


# Panoptic quality


def segments(rows: list[str], labels: list[int], crowd: tuple[int, ...] = ()) -> Segments:
    """From a map written in digits; `crowd` are the numbers of segments that are crowds."""
    map = torch.tensor([[int(digit) for digit in row] for row in rows], dtype=torch.int32)
    return Segments(map, np.array(labels), np.array([n in crowd for n in range(1, len(labels) + 1)]))


def said(rows: list[str], labels: list[int]) -> Segmented:
    found = segments(rows, labels)
    return Segmented(found.map.numpy(), found.labels, np.ones(len(labels), np.float32))


def test_quality_by_hand() -> None:
    """A match over 0.5, one of exactly 0.5 that is none, and a right mask of the wrong class."""
    truth = segments(["1112", "1112", "3344"], [0, 1, 1, 2])
    answer = said(["1122", "1112", "3344"], [0, 1, 1, 3])
    counts = compare(truth, answer, 4)
    assert counts.tolist() == [[1, 2, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [5 / 6, 2 / 3 + 1, 0, 0]]
    found = qualities(counts)
    np.testing.assert_allclose(found.pq, [5 / 6, 5 / 6, 0, 0])
    figures = figures_of(counts, [True, True, False, False])
    assert figures["pq"] == pytest.approx(5 / 12) and figures["rq"] == 0.5
    assert figures["pq_things"] == pytest.approx(5 / 6) and figures["pq_stuff"] == 0
    half = compare(segments(["1100"], [0]), said(["1111"], [0]), 1)  # void is in no union
    assert half.tolist() == [[1], [0], [0], [1]]
    exact = compare(segments(["1122"], [0, 1]), said(["1111"], [0]), 2)
    assert exact.tolist() == [[0, 0], [1, 0], [1, 1], [0, 0]]


def test_void_and_crowds_forgive_and_are_not_missed() -> None:
    """Predicted segments that lie by more than half in void, or in crowds of their own class, are no mistakes."""
    truth = segments(["0002", "0002", "1112"], [0, 1], crowd=(1,))
    right = compare(truth, said(["1111", "0000", "2222"], [1, 0]), 2)
    # segment 1 (class 1): 3 of 4 pixels are void; segment 2 (class 0): 3 of 4 are in the crowd of class 0
    assert right.tolist() == [[0, 0], [0, 0], [0, 1], [0, 0]]
    other = compare(truth, said(["0000", "0000", "1111"], [1]), 2)  # the crowd is of another class
    assert other.tolist() == [[0, 0], [0, 1], [0, 1], [0, 0]]
    half = compare(segments(["0011"], [0]), said(["1111"], [1]), 2)  # exactly half in void is a mistake
    assert half.tolist() == [[0, 0], [0, 1], [1, 0], [0, 0]]
    nothing = figures_of(np.zeros((4, 2)), [True, False])
    assert nothing == {"pq": 0.0, "sq": 0.0, "rq": 0.0}


def test_quality_is_that_of_torchmetrics() -> None:
    """Of random maps without void and crowds, over several images, class by class."""
    rng = np.random.default_rng(0)
    reference = PanopticQuality(things={0, 1}, stuffs={2, 3}, return_sq_and_rq=True, return_per_class=True)
    total = np.zeros((4, 4))
    for _ in range(6):
        truth = np.kron(rng.integers(1, 5, (6, 8)), np.ones((4, 4), int))
        moved = np.roll(truth, rng.integers(0, 2, 2), (0, 1))
        moved[rng.random(moved.shape) < 0.1] = 1
        labels = [(0, 1, 2, 3), (0, 1, 3, 2)]
        pairs = []
        for map, classes in zip((truth, moved), labels, strict=True):
            category = np.array(classes)[map - 1]
            pairs.append(torch.from_numpy(np.stack([category, np.where(category < 2, map, 0)], -1))[None])
        reference.update(pairs[1], pairs[0])
        real = Segments(torch.from_numpy(truth).int(), np.array(labels[0]), np.zeros(4, bool))
        total += compare(real, Segmented(moved, np.array(labels[1]), np.ones(4)), 4)
    found = qualities(total)
    expected = reference.compute().numpy()[0] if reference.compute().ndim == 3 else reference.compute().numpy()
    np.testing.assert_allclose(np.stack([found.pq, found.sq, found.rq], 1), expected, atol=1e-6)


# Merging and losses


def test_merging_gives_every_pixel_to_one_segment() -> None:
    """Two masks of the same stuff become one, two of the same thing stay two, and specks are taken away."""
    logits = torch.full((5, 4), -5.0)
    for query, label in enumerate((0, 0, 2, 2, 1)):
        logits[query, label] = 5
    masks = torch.full((5, 8, 8), -4.0)
    masks[0, :4, :4], masks[1, :4, 4:], masks[2, 4:, :4], masks[3, 4:, 4:] = 4.0, 4.0, 4.0, 3.0
    masks[4, 0, 0] = 9
    found = merge(logits, masks, [True, True, False], (8, 8), (8, 8))
    assert found.labels.tolist() == [0, 0, 2] and (found.scores > 0.99).all()
    assert (found.map[:4, :4] == 1).all() and (found.map[:4, 4:] == 2).all() and (found.map[4:, :4] == 3).all()
    larger = merge(logits[:2], masks[:2], [True, True, False], (8, 8), (16, 24))
    assert larger.map.shape == (16, 24) and set(np.unique(larger.map)) == {1, 2}
    none = merge(logits[:0], masks[:0], [True, True, False], (8, 8), (5, 6))
    assert none.map.shape == (5, 6) and not none.map.any() and not len(none.labels)


def test_likely_queries_say_something_and_are_sure() -> None:
    logits = torch.tensor([[4.0, 0, 0], [0.0, 0, 4], [0.5, 0.4, 0.3], [0.0, 4, 0]])
    assert likely(logits, 0.85).tolist() == [0, 3] and likely(logits, 0.0).tolist() == [0, 2, 3]


def test_a_mask_that_is_right_loses_nothing() -> None:
    truth = torch.zeros(2, 8, 8, dtype=torch.bool)
    truth[0, :4], truth[1, :, 2:] = True, True
    focal, dice = mask_losses(torch.where(truth, 30.0, -30.0), truth)
    assert focal.max() < 1e-6 and dice.max() < 1e-6
    focal, dice = mask_losses(torch.where(truth, -30.0, 30.0), truth)
    assert focal.min() > 5 and dice.min() > 0.9
    assert mask_losses(torch.zeros(0, 4, 4), torch.zeros(0, 8, 8, dtype=torch.bool))[0].shape == (0,)


def test_masks_of_some_queries_are_those_of_all() -> None:
    torch.manual_seed(0)
    model: Any = create_model("detr_panoptic_nano", **TINY).eval()
    images, padding = torch.randn(2, 3, 32, 40), torch.zeros(2, 32, 40, dtype=torch.bool)
    padding[1, :, 30:] = True
    whole = model(images, padding).masks
    looked = model.look(images, padding)
    some = model.masks(looked, torch.tensor([1, 0, 1]), torch.tensor([2, 5, 0]))
    torch.testing.assert_close(some, whole[[1, 0, 1], [2, 5, 0]], atol=1e-5, rtol=0)
    assert model.masks(looked, torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)).shape[0] == 0


def test_an_answer_does_not_depend_on_what_is_beside_it() -> None:
    """Evaluation image by image, in any order; a batch without segments teaches to say nothing."""
    torch.manual_seed(0)
    model = create_model("detr_panoptic_nano", **TINY).eval()
    loader = PanopticLoader(SceneSegments("test", 0), PLAIN, Sizing(32, None), None)
    few = [loader.batch(0, n) for n in range(3)]
    objective = PanopticSegmentation(DetectionSettings(), PanopticSettings(threshold=0.0), THINGS)
    together = predict_split(model, few, objective)
    alone = Predictions.merge([predict_split(model, [batch], objective) for batch in reversed(few)])
    for name, column in vars(alone).items():
        assert torch.equal(column, getattr(together, name)), name
    assert together.counts[:3].sum() > 0
    batch = few[0]
    crowds = batch.crowd.__class__(torch.ones_like(batch.crowd.values), batch.crowd.lengths)
    empty = batch.__class__(batch.images, batch.maps, batch.labels, batch.boxes, crowds, batch.indices)
    losses = objective.losses(model, look(model, empty), empty)
    losses.total.backward()
    assert losses.focal == losses.dice == 0 and losses.total > 0


# Runs


def test_a_run_learns_evaluates_and_reports(folder: Path, run: tuple[Path, dict[str, Any]]) -> None:
    path, metrics = run
    assert {"pq", "sq", "rq", "loss"} <= metrics["test"].keys() and metrics["test"]["loss"] > 0
    assert evaluate(path, str(folder), "test")["test"] == metrics["test"]
    sure = evaluate(path, str(folder), "test", {"evaluation.threshold": 1.0})["test"]
    assert sure["pq"] == 0 and sure["loss"] == metrics["test"]["loss"]
    page = (path / "report.html").read_text()
    assert "panoptic quality" in page and "Worst images" in page and page.count("data:image") >= 24
    assert json.loads((path / "model" / "config.json").read_text())["facts"]["category_ids"] == list(range(3, 17))
    with pytest.raises(OrchardError, match="does not know the class 'one'"):
        write = write_segments(path / "other", (1, 1, 1))
        table = write / "annotations" / "panoptic_test.json"
        for one in write.glob("annotations/*.json"):
            one.write_text(one.read_text().replace('"name": "1"', '"name": "one"'))
        assert "one" in table.read_text()
        evaluate(str(path), str(write), "test")


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    folder: Path, run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with stopped_after(3, 6):
        train("detr_panoptic_nano", str(folder), tmp_path / "run", **SMALL)
    train("detr_panoptic_nano", str(folder), tmp_path / "run", **SMALL)
    ours, whole = (load_file(path / "model" / "model.safetensors") for path in (tmp_path / "run", run[0]))
    assert all(torch.equal(tensor, whole[name]) for name, tensor in ours.items())


def test_answers_are_a_set_in_coco_s_form(
    folder: Path, run: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is written is read again by the kind of data itself, with the images beside it."""
    images = sorted((folder / "test").glob("*.png"))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    assert orchard("predict", run[0], *images, tmp_path / "bad.png", "--out", out, "--json") == 1  # of the bad one
    rows = json.loads(capsys.readouterr().out)
    assert "error" in rows[-1] and len(rows) == 5
    segmenter = pipeline(str(run[0]))
    answers = segmenter([str(path) for path in images])
    (out / "images").mkdir()
    for path, row, answer in zip(images, rows, answers, strict=False):
        assert [part["class"] for part in row["segments"]] == [part.label for part in answer.segments]
        assert sum(part.share for part in answer.segments) == pytest.approx(float((answer.map > 0).mean()))
        stored = Image.open(path)
        assert answer.map.shape == stored.size[::-1] and Image.open(row["overlay"]).width >= stored.width
        stored.save(out / "images" / path.name)
    data = open_panoptic(str(out), DataSettings().for_evaluation(whole=True))
    assert data.classes == open_panoptic(str(folder), DataSettings()).classes and not data.problems
    record = data.splits["test"].record(0)
    ids = read_ids(data.splits["test"].files, record_map(data, record.key))  # type: ignore[attr-defined]
    assert np.array_equal(record.segments.map.numpy(), ids)
    nothing = segmenter(str(images[0]), threshold=1.0)
    assert nothing[0].segments == () and not nothing[0].map.any()


def record_map(data: Any, key: str) -> str:
    return next(one.map for one in data.splits["test"].images if key.endswith(one.image))


def test_the_detector_begins_with_a_detr(tmp_path: Path) -> None:
    """The official second stage: classes are found by name, and what is frozen stays as it is."""
    torch.manual_seed(0)
    detr: Any = create_model("detr_nano", **TINY, num_classes=2)
    about = Portable("detr_nano", architecture_of(detr), "object-detection", ("7", "3"), PLAIN.to_json())
    save_portable(tmp_path / "detr", detr, about)
    model: Any = create_model("detr_panoptic_nano", **TINY, num_classes=3)
    fresh = model.detector.class_head.weight[2].clone()
    load_detector(model, tmp_path / "detr", ("3", "7", "grass"))
    rows = detr.class_head.weight
    assert torch.equal(model.detector.class_head.weight, torch.stack([rows[1], rows[0], fresh, rows[2]]))
    assert torch.equal(model.trunk.conv1.weight, detr.trunk.conv1.weight)
    other = create_model("detr_panoptic_nano", **{**TINY, "encoder_layers": 2}, num_classes=3)
    with pytest.raises(UsageError, match="holds a detr_nano, and the detector is a DETR on a resnet_nano; 'transf"):
        load_detector(other, tmp_path / "detr", ("3", "7", "grass"))
    wider = create_model("detr_panoptic_nano", **{**TINY, "width": 64}, num_classes=3)
    with pytest.raises(OrchardError, match=r"has shape .*, here .* is needed"):
        load_detector(wider, tmp_path / "detr", ("3", "7", "grass"))


def test_a_frozen_detector_stays_as_it_was(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    detr = create_model("detr_nano", **TINY, frozen_norm=True, num_classes=14)
    classes = open_panoptic(str(folder), DataSettings()).classes
    about = Portable("detr_nano", architecture_of(detr), "object-detection", classes, PLAIN.to_json())
    save_portable(tmp_path / "detr", detr, about)
    settings = {**SMALL, "architecture": {**TINY, "frozen_norm": True}, "max_steps": 2, "freeze": ("detector.",)}
    train("detr_panoptic_nano", str(folder), tmp_path / "run", detector_from=str(tmp_path / "detr"), **settings)
    _, learned = load_portable(tmp_path / "run" / "model")
    for name, tensor in detr.state_dict().items():
        assert torch.equal(tensor, learned.detector.state_dict()[name]), name  # type: ignore[union-attr, operator]


def test_official_checkpoints_know_things_by_coco_s_numbers(tmp_path: Path) -> None:
    from orchard.inference.loading import load

    model = create_model("detr_panoptic_nano", **TINY, num_classes=100)
    classes = tuple(map(str, range(100)))
    about = Portable("detr_panoptic_nano", architecture_of(model), "panoptic-segmentation", classes, PLAIN.to_json())
    save_portable(tmp_path, model, about)
    assert things_of(load(tmp_path)) == [True] * 91 + [False] * 9
