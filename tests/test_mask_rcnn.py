"""Mask R-CNN and instance segmentation: torchvision's masks and losses, COCO's metrics, exact runs, files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scene_files import write_scenes
from stopping import stopped_after
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2
from torchvision.ops import roi_align

from orchard.app.evaluate import evaluate
from orchard.app.export import export
from orchard.app.pipeline import pipeline
from orchard.app.train import resolve_training, train
from orchard.cards import card_of
from orchard.data.boxes.loader import InstanceLoader
from orchard.data.boxes.named import SceneBoxes
from orchard.data.boxes.object_masks import Masks
from orchard.data.boxes.sources import open_instances
from orchard.data.contracts import Preprocess
from orchard.data.settings import DataSettings
from orchard.data.sizing import Sizing
from orchard.errors import OrchardError, UsageError
from orchard.models import create_model
from orchard.models.detection.masks import mask_loss, paste_mask
from orchard.models.detection.regions import RegionSample
from orchard.tasks.instance_segmentation.answer import answer
from orchard.tasks.instance_segmentation.job import Job
from orchard.tasks.instance_segmentation.metrics import evaluate_instances
from orchard.tasks.instance_segmentation.objective import InstanceObjective, InstancePredictions
from orchard.tasks.instance_segmentation.settings import Options
from orchard.tasks.object_detection.objective import predict_split
from orchard.weights.official import export_official, read_official
from orchard.weights.proof import compare

GREY = Preprocess((64, 80), 3, (0.5,) * 3, (0.25,) * 3)
SMALL: dict[str, Any] = {
    "architecture": {"width": 16, "hidden": 16, "mask_width": 8, "mask_region": 7, "least_score": 0.01},
    "shorter_side": 32,
    "batch_size": 4,
    "max_steps": 4,
    "log_every": 2,
    "precision": "fp32",
    "augmentation": {"flip": True, "sides": [32, 48]},
}


def masked_loader() -> InstanceLoader:
    return InstanceLoader(SceneBoxes("test", 0, masks=True), GREY, Sizing(64, None), None)


# Parity


def test_losses_of_samples_are_torchvision_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples much smaller than what there is, drawn alike on both sides."""
    monkeypatch.setattr(torch, "randperm", lambda count, **_: torch.arange(count).flip(0))
    (row,) = (row for row in card_of("mask_rcnn").references if row.variant == "maskrcnn_resnet50_fpn")
    ours = row.ours | {"anchor_samples": 32, "region_samples": 16}
    theirs = row.theirs | {"rpn_batch_size_per_image": 32, "box_batch_size_per_image": 16}
    found, whole = compare(replace(row, ours=ours, theirs=theirs)), compare(row)
    assert found.ok and found.loss_difference is not None and found.loss_difference < 1e-5, found
    assert whole.ok


@pytest.mark.parametrize("build", [maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2])
def test_every_tensor_of_torchvision_s_has_its_place(build: Any) -> None:
    with torch.device("meta"):
        theirs = build(weights=None, weights_backbone=None).state_dict()
        ours: Any = create_model(build.__name__)
    if ours.config.frozen_norm:
        theirs = {name: tensor for name, tensor in theirs.items() if "num_batches" not in name}
    back = export_official(ours, "torchvision")
    assert {name: tensor.shape for name, tensor in back.items()} == {name: t.shape for name, t in theirs.items()}


def test_the_first_released_files_are_read() -> None:
    changes = card_of("mask_rcnn").references[0].ours
    model: Any = create_model("maskrcnn_resnet50_fpn", **changes)
    theirs = export_official(model, "torchvision_first")
    assert {"roi_heads.mask_head.mask_fcn4.bias", "roi_heads.mask_predictor.conv5_mask.weight"} <= theirs.keys()
    less = {key: value for key, value in changes.items() if key != "num_classes"}
    found = read_official("maskrcnn_resnet50_fpn", theirs, None, less)
    config: Any = found.model.config
    assert config.num_classes == 5 and config.frozen_norm_eps == 0.0
    weight = found.model.state_dict()["predictor.masks.weight"]
    assert torch.equal(weight, model.state_dict()["predictor.masks.weight"])
    assert torch.equal(theirs["roi_heads.mask_predictor.mask_fcn_logits.weight"][0], weight[-1])  # background


# Losses and answers


def test_masks_learn_from_the_object_s_own_class_inside_of_the_region() -> None:
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[0, 4:20, 4:20], masks[1, 10:30, 16:32] = True, True
    sample = RegionSample(
        boxes=torch.tensor([[0.0, 0, 32, 32], [4, 4, 20, 20], [0, 0, 8, 8]]), pictures=torch.tensor([1, 1, 1]),
        classes=torch.tensor([2, 0, 3]), objects=torch.tensor([0, 1]), deltas=torch.zeros(2, 4),
        matched=torch.tensor([1, 0]),
    )  # fmt: skip
    logits = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    shown = masks[:, None].float()
    wanted = torch.cat([roi_align(shown[1:], [sample.boxes[:1]], 8), roi_align(shown[:1], [sample.boxes[1:2]], 8)])
    own = torch.stack([logits[0, 2], logits[1, 0]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(own, wanted[:, 0])
    torch.testing.assert_close(mask_loss(logits, sample, [masks[:0], masks]), expected)


@pytest.mark.parametrize("norm", [False, True])
def test_images_without_objects_teach_no_mask_and_leave_numbers(norm: bool) -> None:
    torch.manual_seed(0)
    model: Any = create_model("mask_rcnn_nano", norm=norm).train()
    nothing = [torch.empty(0, 4)] * 2, [torch.empty(0, dtype=torch.int64)] * 2
    masks = [torch.empty(0, 48, 64, dtype=torch.bool)] * 2
    losses = model.losses(torch.randn(2, 3, 48, 64), None, *nothing, masks=masks)
    assert losses["mask"] == losses["box_reg"] == 0 < losses["classifier"]
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_masks_that_do_not_fit_are_refused_in_one_line() -> None:
    model: Any = create_model("mask_rcnn_nano")
    box, label = torch.tensor([[0.5, 0.5, 0.4, 0.4]]), torch.tensor([1])
    for masks in ([], [torch.zeros(2, 64, 80)], [torch.zeros(1, 64, 79)]):
        with pytest.raises(ValueError, match=r"^expected masks of shapes \[\(1, 64, 80\)\], .*$"):
            model.losses(torch.zeros(1, 3, 64, 80), None, [box], [label], masks=masks)


def test_images_are_judged_alone_and_once() -> None:
    """Whatever stands beside them; the trunk looks at each image once, for answers and losses."""
    torch.manual_seed(0)
    model: Any = create_model("mask_rcnn_nano", least_score=0.098, most_answers=9).eval()
    few, objective, looks = [masked_loader().batch(0, n) for n in range(3)], InstanceObjective(model), []
    model.trunk.register_forward_pre_hook(lambda *_: looks.append(1))
    feature_maps = model.trunk.feature_maps
    model.trunk.feature_maps = lambda images: (looks.append(1), feature_maps(images))[1]
    together: Any = predict_split(model, few, objective)
    assert len(looks) == 3
    torch.manual_seed(1)
    alone: Any = InstancePredictions.merge([predict_split(model, [one], objective) for one in reversed(few)])  # type: ignore[misc]
    for name, column in vars(together).items():
        other = getattr(alone, name)
        assert column == other if name == "masks" else torch.equal(column, other), name
    for n, masks in enumerate(together.masks):
        assert [masks.height, masks.width] == few[n].sizes[0].tolist()
        assert len(masks) == (together.scores[n] >= 0).sum() <= 9
    again = InstancePredictions.from_tensors(together.tensors())
    assert again.masks == together.masks and torch.equal(again.scores, together.scores)
    with torch.no_grad():
        images, targets = few[0].images.values, objective.targets(few[0])
        answers, losses = model.judge(images, None, **targets, generator=torch.Generator().manual_seed(0))
        apart = model.losses(images, None, **targets, generator=torch.Generator().manual_seed(0))
        assert losses == apart and torch.equal(answers.masks, model(images).masks)


def test_a_mask_is_stretched_over_its_box() -> None:
    pasted = paste_mask(torch.ones(28, 28), torch.tensor([10.0, 20.0, 30.0, 50.0]), (60, 40))
    assert pasted.shape == (60, 40) and not pasted[:18].any() and not pasted[53:].any() and not pasted[:, :8].any()
    assert (pasted[22:49, 12:29] > 0.99).all()


# Metrics


def test_true_masks_have_full_precision_and_boxes_for_masks_have_less() -> None:
    split, classes = SceneBoxes("validation", 0, masks=True), tuple("0123456789")

    def said(change: Any) -> InstancePredictions:
        objects = [split.objects(n) for n in range(6)]
        most = max(len(one.labels) for one in objects)
        pad = [most - len(one.labels) for one in objects]
        scores = torch.stack([torch.tensor([0.9] * (most - n) + [-1.0] * n) for n in pad])
        labels = torch.stack([torch.tensor([*o.labels, *[0] * n]) for o, n in zip(objects, pad, strict=True)])
        boxes = torch.stack(
            [torch.from_numpy(np.pad(o.boxes, ((0, n), (0, 0)))) for o, n in zip(objects, pad, strict=True)]
        )
        return InstancePredictions(
            scores, labels, boxes, torch.zeros(6), torch.arange(6), tuple(change(o) for o in objects)
        )  # fmt: skip

    def filled(objects: Any) -> Masks:
        dense = objects.masks.dense()
        for mask, (left, top, right, bottom) in zip(dense, objects.boxes.astype(int), strict=True):
            mask[top:bottom, left:right] = True
        return Masks.of(dense)

    best = evaluate_instances(said(lambda objects: objects.masks), split, classes)
    assert best.figures["ap"] == best.figures["box_ap"] == pytest.approx(1)
    coarse = evaluate_instances(said(filled), split, classes)
    assert coarse.figures["box_ap"] == pytest.approx(1) and coarse.figures["ap75"] < 0.5
    assert {"ap50", "ar100", "box_ap50", "loss"} <= coarse.figures.keys() and coarse.curves.keys() == {"0.5", "0.75"}


# Runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("runs") / "run"
    return path, train("mask_rcnn_nano", str(folder), path, **SMALL)


def test_stopped_and_resumed_ends_in_the_same_bits(
    folder: Path, run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with stopped_after(2, 4):
        train("mask_rcnn_nano", str(folder), tmp_path / "parts", **SMALL)
    torch.manual_seed(99)
    again = train("mask_rcnn_nano", str(folder), tmp_path / "parts", **SMALL)
    assert again["test"] == run[1]["test"]
    one, two = (load_file(path / "model" / "model.safetensors") for path in (run[0], tmp_path / "parts"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_is_evaluated_and_shown(folder: Path, run: tuple[Path, dict[str, Any]]) -> None:
    path, metrics = run
    assert {"loss", "ap", "ap50", "box_ap", "box_ap50"} <= metrics["test"].keys()
    assert evaluate(path, str(folder), "test")["test"] == pytest.approx(metrics["test"], abs=1e-5)
    columns = (path / "log.csv").read_text().splitlines()[0].split(",")
    assert {"mask_loss", "box_reg_loss", "ap50", "box_ap50"} <= set(columns)
    page = (path / "report.html").read_text()
    for words in ("Proposals: masks", "Test mask AP", "Box AP50", "with the masks of its objects", "Most errors"):
        assert words in page


def test_answers_are_drawn_cut_out_and_written_as_coco(
    folder: Path, run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """What is written as COCO's file is a set with masks again."""
    (tmp_path / "bad.png").write_bytes(b"no image")
    image = folder / "test" / "test0.png"
    (found,) = pipeline(run[0])([str(image)], threshold=0.0)
    stored = load_file(run[0] / "evaluation" / "test.safetensors")["scores"][0]
    assert [thing.score for thing in found.things] == pytest.approx(stored[stored >= 0].tolist(), abs=1e-6)
    with Image.open(image) as opened:
        width, height = opened.size
    best = found.things[0]
    assert best.mask.shape == (height, width) and best.mask.sum() == best.area and found.size == (height, width)
    options = Options(
        threshold=found.things[2].score, draw=tmp_path / "drawn", crops=tmp_path / "crops",
        coco=tmp_path / "said" / "instances_test.json",
    )  # fmt: skip
    first, bad = answer(run[0], [str(image), str(tmp_path / "bad.png")], options, lambda line: None)
    assert bad.to_json().keys() == {"picture", "error"} and len(bad.cells()) == len(bad.columns())
    written = first.to_json()["objects"]
    assert len(written) == 3 and written[0]["segmentation"] == best.segmentation
    assert Path(first.drawn).is_file() and [Path(one["crop"]).name for one in written] == [
        "test0-1.png", "test0-2.png", "test0-3.png",
    ]  # fmt: skip
    with Image.open(written[0]["crop"]) as cut:
        assert cut.mode == "RGBA" and cut.width <= width and cut.height <= height
    assert len(first.cells()) == len(first.columns()) and first.cells()[-1].count("; ") == 2
    table = json.loads(options.coco.read_text())  # type: ignore[union-attr]
    assert [one["file_name"] for one in table["images"]] == [str(image)] and table["categories"][3]["name"] == "digit 3"
    kept = sum(one.area > 0 for one in found.things[:3])
    assert len(table["annotations"]) == kept > 0
    (tmp_path / "said" / "test0.png").write_bytes(image.read_bytes())
    objects = open_instances(str(tmp_path / "said"), DataSettings()).splits["test"].objects(0)
    assert objects.masks is not None and objects.masks.areas().tolist() == [
        one.area for one in found.things[:3] if one.area
    ]


def test_another_set_of_classes_keeps_the_masks_it_knows(run: tuple[Path, dict[str, Any]], folder: Path) -> None:
    """Fine-tuning takes rows of the head by their names, those of masks too."""
    changed = SMALL | {"start_from": str(run[0]), "max_steps": 1}
    for split in ("train", "validation", "test"):
        table = json.loads((folder / f"instances_{split}.json").read_text())
        table["categories"][4]["name"] = "four"
        (folder / f"instances_{split}.json").write_text(json.dumps(table))
    try:
        model = Job(resolve_training("mask_rcnn_nano", str(folder), changed)[0], torch.device("cpu")).model
    finally:
        for split in ("train", "validation", "test"):
            text = (folder / f"instances_{split}.json").read_text()
            (folder / f"instances_{split}.json").write_text(text.replace('"four"', '"digit 4"'))
    saved, now = load_file(run[0] / "model" / "model.safetensors"), model.state_dict()
    name = "predictor.masks.weight"
    same = [torch.equal(*rows) for rows in zip(saved[name][:10], now[name][:10], strict=True)]
    assert sum(same) == 9 and torch.equal(saved[name][10], now[name][10])


def test_what_does_not_go_with_such_a_model_is_refused(
    folder: Path, run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"holds a mask_rcnn_nano, which answers by .* cannot be exported"):
        export(run[0], "onnx")
    with pytest.raises(UsageError, match=r"detection"):
        resolve_training("mask_rcnn_nano", str(folder), SMALL | {"detection.giou_weight": 3.0})
    with pytest.raises(OrchardError, match="is a file; name a folder with --crops"):
        (tmp_path / "file").write_text("")
        options = Options(threshold=0.0, crops=tmp_path / "file")
        list(answer(run[0], [str(folder / "test" / "test0.png")], options, lambda line: None))


def test_images_without_objects_and_without_answers_are_judged() -> None:
    class Empty(SceneBoxes):
        def record(self, index: int) -> Any:
            found = super().record(index)
            none = np.zeros(len(found.objects.labels), bool)
            return replace(found, objects=found.objects.only(none)) if index == 0 else found

    split, classes = Empty("test", 0, masks=True), tuple("0123456789")
    model: Any = create_model("mask_rcnn_nano", least_score=0.99).eval()
    loader = InstanceLoader(split, GREY, Sizing(64, None), None)
    found: Any = predict_split(model, [loader.batch(0, n) for n in range(2)], InstanceObjective(model))
    assert found.scores.shape == (2, 0) and [len(one) for one in found.masks] == [0, 0]
    again = InstancePredictions.from_tensors(found.tensors())
    assert again.masks == found.masks
    figures = evaluate_instances(again, split, classes).figures
    assert figures["ap"] == figures["box_ap"] == 0 and np.isfinite(figures["loss"])
