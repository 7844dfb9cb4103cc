"""Faster R-CNN: parts and samples are torchvision's, any trunk will do, runs are exact, images are judged alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from scene_files import write_scenes
from stopping import stopped_after
from torchvision.models.detection import (
    FasterRCNN_ResNet50_FPN_Weights,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from orchard.app.evaluate import evaluate
from orchard.app.export import export
from orchard.app.pipeline import pipeline
from orchard.app.train import resolve_training, train
from orchard.cards import card_of
from orchard.data.boxes.loader import BoxLoader
from orchard.data.boxes.named import SceneBoxes
from orchard.data.contracts import Preprocess
from orchard.data.sizing import Sizing
from orchard.errors import UsageError
from orchard.inference import fast_maps
from orchard.inference.export import Entry, export_onnx
from orchard.models import configuration, create_model, landmark_of
from orchard.nn.anchors import cell_anchors, grid_anchors
from orchard.nn.box_coding import MOST, decode_boxes, encode_boxes
from orchard.nn.box_matching import match_boxes, sample_boxes
from orchard.tasks.known_classes import head_rows
from orchard.tasks.object_detection.job import Job
from orchard.tasks.object_detection.objective import Predictions, objective_for, predict_split
from orchard.tasks.object_detection.settings import DetectionSettings
from orchard.weights import by_name
from orchard.weights.names import foreign_names
from orchard.weights.official import export_official, read_official
from orchard.weights.proof import compare

SMALL: dict[str, Any] = {
    "architecture": {"width": 16, "hidden": 16, "least_score": 0.01},
    "shorter_side": 32,
    "batch_size": 4,
    "max_steps": 4,
    "log_every": 2,
    "precision": "fp32",
    "augmentation": {"flip": True, "sides": [32, 48]},
}


def random_boxes(count: int, seed: int) -> torch.Tensor:
    corners = 80 * torch.rand(count, 2, generator=torch.Generator().manual_seed(seed))
    sides = 4 + 40 * torch.rand(count, 2, generator=torch.Generator().manual_seed(seed + 1))
    return torch.cat([corners, corners + sides], 1)


# Parts


def test_anchors_are_torchvision_s() -> None:
    """Also where a map has an odd number of rows, so that the next one's step is none of the powers of two."""
    sizes, ratios = (12.0, 25.0), (0.5, 1.0, 2.0)
    maps = [torch.empty(1, 1, 3, 5), torch.empty(1, 1, 2, 3)]
    theirs = AnchorGenerator(tuple((size,) for size in sizes), (ratios,) * 2)
    expected = theirs(ImageList(torch.empty(1, 3, 96, 160), [(96, 160)]), maps)[0]
    ours = [grid_anchors(cell_anchors(s, ratios), m.shape[2:], (96, 160)) for s, m in zip(sizes, maps, strict=True)]
    assert torch.equal(torch.cat(ours), expected) and len(expected) == 63


def test_boxes_come_back_from_their_differences() -> None:
    boxes, anchors, weights = random_boxes(20, 0), random_boxes(20, 7), (10.0, 10.0, 5.0, 5.0)
    deltas, theirs = encode_boxes(boxes, anchors, weights), BoxCoder(weights)
    torch.testing.assert_close(decode_boxes(deltas, anchors, weights), boxes)
    torch.testing.assert_close(deltas, theirs.encode_single(boxes, anchors))
    wild = 30 * deltas  # sides are bounded
    torch.testing.assert_close(decode_boxes(wild, anchors, weights), theirs.decode_single(wild, anchors))
    far = decode_boxes(torch.full((1, 4), 99.0), anchors[:1], (1.0,) * 4)
    sides = anchors[:1, 2:] - anchors[:1, :2]
    torch.testing.assert_close((far[:, 2:] - far[:, :2]) / sides, torch.full((1, 2), MOST).exp(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("best", [True, False])
def test_objects_are_matched_as_in_torchvision(best: bool) -> None:
    objects, boxes = random_boxes(4, 3), random_boxes(200, 11)
    expected = Matcher(0.5, 0.3, allow_low_quality_matches=best)(box_iou(objects, boxes))
    assert torch.equal(match_boxes(objects, boxes, 0.3, 0.5, best_of_each=best), expected)
    assert set(expected.tolist()) >= {-2, -1, 0}
    assert (match_boxes(objects[:0], boxes, 0.3, 0.5, best_of_each=best) == -1).all()


def test_samples_are_of_the_size_and_the_share_that_is_asked_for() -> None:
    matched = torch.tensor([0, -1, -2, 1, -1, 0, -1, -1, 2, -1])
    positive, negative = sample_boxes(matched, 4, 0.5, torch.Generator().manual_seed(0))
    assert len(positive) == len(negative) == 2 and (matched[positive] >= 0).all() and (matched[negative] == -1).all()
    positive, negative = sample_boxes(matched, 64, 0.25, None)
    assert positive.tolist() == [0, 3, 5, 8] and negative.tolist() == [1, 4, 6, 7, 9]
    again = [sample_boxes(matched, 4, 0.5, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert all(torch.equal(*pair) for pair in zip(*again, strict=True))


# Parity


def test_losses_of_samples_are_torchvision_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples much smaller than what there is, drawn alike on both sides."""
    monkeypatch.setattr(torch, "randperm", lambda count, **_: torch.arange(count).flip(0))
    (row,) = (row for row in card_of("faster_rcnn").references if row.variant == "fasterrcnn_resnet50_fpn")
    ours = row.ours | {"anchor_samples": 32, "region_samples": 16}
    theirs = row.theirs | {"rpn_batch_size_per_image": 32, "box_batch_size_per_image": 16}
    found, whole = compare(replace(row, ours=ours, theirs=theirs)), compare(row)
    assert found.ok and found.loss_difference is not None and found.loss_difference < 1e-5, found
    assert whole.ok


@pytest.mark.parametrize("build", [fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn_v2])
def test_every_tensor_of_torchvision_s_has_its_place(build: Any) -> None:
    with torch.device("meta"):
        theirs = build(weights=None, weights_backbone=None).state_dict()
        ours: Any = create_model(build.__name__)
    if ours.config.frozen_norm:
        theirs = {name: tensor for name, tensor in theirs.items() if "num_batches" not in name}
    back = export_official(ours, "torchvision")
    assert {name: tensor.shape for name, tensor in back.items()} == {name: t.shape for name, t in theirs.items()}


def test_the_first_released_files_are_read() -> None:
    """Their names are shorter, and they were trained with norms that add nothing to the variance."""
    changes = card_of("faster_rcnn").references[0].ours
    model: Any = create_model("fasterrcnn_resnet50_fpn", **changes)
    theirs = export_official(model, "torchvision_first")
    assert {"rpn.head.conv.weight", "backbone.fpn.inner_blocks.0.bias"} <= theirs.keys()
    less = {key: value for key, value in changes.items() if key != "num_classes"}
    found = read_official("fasterrcnn_resnet50_fpn", theirs, None, less)
    config: Any = found.model.config
    assert config.num_classes == 5 and config.frozen_norm_eps == 0.0
    assert found.about.classes == tuple("12345")  # 0 is the background; so classes are COCO's categories
    assert by_name._beside("fasterrcnn_resnet50_fpn", FasterRCNN_ResNet50_FPN_Weights.COCO_V1).classes[:2] == (
        "person",
        "bicycle",
    )
    weight = found.model.state_dict()["predictor.boxes.weight"]
    assert torch.equal(weight, model.state_dict()["predictor.boxes.weight"])
    # The background's rows are torchvision's first and our last.
    assert torch.equal(theirs["roi_heads.box_predictor.bbox_pred.weight"][:4], weight[-1])
    table = landmark_of("faster_rcnn_nano").names["torchvision_first"](model.config)
    assert foreign_names(table, "pyramid.output.3.0.bias")[1] == ("backbone.fpn.layer_blocks.3.bias",)


# Trunks


@pytest.mark.parametrize(
    ("trunk", "levels"), [("resnet_nano", 3), ("lambda_resnet_nano", 2), ("mobilenetv2_nano", 3), ("vit_nano", 1)]
)
def test_any_trunk_with_feature_maps_carries_a_pyramid(trunk: str, levels: int) -> None:
    sizes = (8, 16, 24, 32)[: levels + 1]
    changes: dict[str, Any] = {"trunk_settings": {}, "in_channels": configuration(trunk).in_channels}
    size = configuration(trunk).image_size
    model: Any = create_model("faster_rcnn_nano", trunk=trunk, levels=levels, anchor_sizes=sizes, width=8, **changes)
    images = torch.randn(2, model.config.in_channels, size, size, generator=torch.Generator().manual_seed(0))
    maps = model._see(images, None).maps
    assert len(maps) == levels + 1 and all(one.shape[:2] == (2, 8) for one in maps)
    for one, stride in zip(maps, model.strides, strict=False):
        assert one.shape[2:] == (size // stride, size // stride)
    box = torch.tensor([[0.5, 0.5, 0.4, 0.4]])
    losses = model.losses(images, None, [box, box[:0]], [torch.tensor([1]), torch.tensor([], dtype=torch.int64)])
    assert tuple(losses) == model.loss_names
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_trunks_without_enough_maps_are_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="lenet_300_100 has no feature maps"):
        create_model("faster_rcnn_nano", trunk="lenet_300_100", trunk_settings={})
    with pytest.raises(UsageError, match=r"vit_nano has maps of 1 resolutions .*levels = 2; set fewer levels"):
        create_model("faster_rcnn_nano", trunk="vit_nano", trunk_settings={})
    with pytest.raises(UsageError, match=r"anchor_sizes has 3 numbers, expected levels \+ 1 = 4"):
        create_model("faster_rcnn_nano", levels=3)


# Losses and answers


def test_images_without_objects_teach_what_background_is() -> None:
    torch.manual_seed(0)
    model: Any = create_model("faster_rcnn_nano").train()
    nothing = [torch.empty(0, 4)] * 2, [torch.empty(0, dtype=torch.int64)] * 2
    losses = model.losses(torch.randn(2, 3, 48, 64), None, *nothing)
    assert losses["objectness"] > 0 and losses["classifier"] > 0
    assert losses["rpn_box_reg"] == losses["box_reg"] == 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_images_are_judged_alone_and_have_as_many_answers_as_are_found() -> None:
    torch.manual_seed(0)
    model: Any = create_model("faster_rcnn_nano", least_score=0.098, most_answers=9).eval()
    loader = BoxLoader(SceneBoxes("test", 0), Preprocess((64, 80), 3, (0.5,) * 3, (0.25,) * 3), Sizing(64, None), None)
    few, objective = [loader.batch(0, n) for n in range(3)], objective_for(model, DetectionSettings())
    together = predict_split(model, few, objective)
    torch.manual_seed(1)  # what is drawn for the losses is drawn for each image
    alone = [predict_split(model, [batch], objective) for batch in reversed(few)]
    for name, column in vars(Predictions.merge(alone)).items():
        assert torch.equal(column, getattr(together, name)), name
    for n, one in enumerate(reversed(alone)):
        there = together.scores[n] >= 0
        assert there.sum() == one.scores.shape[1] <= 9
        height, width = few[n].sizes[0].tolist()
        boxes = together.boxes[n][there]
        assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height] * 2) + 1e-3).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_a_padded_image_is_clipped_to_its_own_size() -> None:
    torch.manual_seed(0)
    model: Any = create_model("faster_rcnn_nano").eval()
    padding = torch.zeros(1, 64, 80, dtype=torch.bool)
    padding[:, 40:], padding[:, :, 50:] = True, True
    found = model(torch.randn(1, 3, 64, 80).masked_fill(padding[:, None], 0), padding)
    assert found.seen.tolist() == [[40, 50]]
    assert found.proposals[..., 2].max() == 50 and found.proposals[..., 3].max() <= 40
    (answer,) = replace(found, least_score=0.0).found(torch.tensor([[400, 500]]))
    assert answer.boxes[:, 2].max() > 100 and (answer.boxes <= torch.tensor([500, 400] * 2) + 1e-3).all()


def test_a_new_class_keeps_the_boxes_of_those_it_is_not() -> None:
    saved, fresh = torch.randn(4, 4, 8), torch.randn(3, 4, 8)
    rows = head_rows(saved, fresh, ("cat", "dog", "cow"), ("cow", "hen"), ["cow"])
    assert torch.equal(rows[0], saved[2]) and torch.equal(rows[1], fresh[1]) and torch.equal(rows[2], saved[3])


# Runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("runs") / "run"
    return path, train("faster_rcnn_nano", str(folder), path, **SMALL)


def test_stopped_and_resumed_ends_in_the_same_bits(
    folder: Path, run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with stopped_after(2, 4):
        train("faster_rcnn_nano", str(folder), tmp_path / "parts", **SMALL)
    torch.manual_seed(99)
    again = train("faster_rcnn_nano", str(folder), tmp_path / "parts", **SMALL)
    assert again["test"] == run[1]["test"]
    one, two = (load_file(path / "model" / "model.safetensors") for path in (run[0], tmp_path / "parts"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_is_evaluated_shown_and_asked(folder: Path, run: tuple[Path, dict[str, Any]]) -> None:
    path, metrics = run
    assert {"loss", "ap", "ap50"} <= metrics["test"].keys()
    assert evaluate(path, str(folder), "test")["test"] == pytest.approx(metrics["test"], abs=1e-5)
    columns = (path / "log.csv").read_text().splitlines()[0].split(",")
    assert {"objectness_loss", "rpn_box_reg_loss", "classifier_loss", "box_reg_loss", "ap50"} <= set(columns)
    assert "giou_loss" not in columns and "Proposals: classes" in (path / "report.html").read_text()
    (answer,) = pipeline(path)([str(folder / "test" / "test0.png")], threshold=0.0)
    stored = load_file(path / "evaluation" / "test.safetensors")["scores"][0]
    assert [thing.score for thing in answer.things] == pytest.approx(stored[stored >= 0].tolist(), abs=1e-6)


def test_what_does_not_go_with_such_a_model_is_refused(folder: Path, run: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match="holds a faster_rcnn_nano, which answers by non-maximum suppression"):
        export(run[0], "onnx")
    resolved, _ = resolve_training("faster_rcnn_nano", str(folder), SMALL | {"detection.giou_weight": 3.0})
    with pytest.raises(UsageError, match=r"detection.giou_weight is of models that .* FasterRCNN has losses"):
        Job(resolved, torch.device("cpu"))


def test_dense_maps_are_exported_for_any_batch(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = create_model("faster_rcnn_nano").eval()
    entry = Entry("", fast_maps._Flat(model).eval(), lambda count, _: {"images": torch.ones(count, 3, 64, 80)}, "maps")
    assert export_onnx(entry, tmp_path / "dense.onnx") < 1e-4  # compared at another batch than it was traced with
