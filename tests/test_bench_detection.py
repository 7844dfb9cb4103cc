"""Detectors beside their peers, and their dense maps made fast. No figure is asserted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from orchard.app.bench import bench
from orchard.cli.bench import row
from orchard.errors import OrchardError, UsageError
from orchard.inference import fast, fast_maps, timing
from orchard.inference.fast import FastModel
from orchard.models import create_model
from orchard.models.detection.contract import Found
from orchard.tasks.object_detection import peers

TINY_DETR = dict(
    trunk="resnet18", image_size=(64, 96), width=32, heads=4, hidden=48, encoder_layers=1, decoder_layers=2, queries=5,
    num_classes=7,
)  # fmt: skip
TINY_RCNN = dict(image_size=(64, 96), candidates=(30, 20), proposals=(10, 6), most_answers=5, num_classes=4)


@pytest.fixture(autouse=True)
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "no-such-compiler")  # compiling is tested elsewhere, and takes its time
    monkeypatch.setattr(fast, "ENGINES", ())
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    for module in (timing, peers):
        monkeypatch.setattr(module, "MATRIX", 64)


def tiny(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    monkeypatch.setattr(peers, "create_model", lambda name: create_model(name, **settings))


@pytest.mark.parametrize(
    ("name", "against", "settings"),
    [
        ("detr_resnet50", "transformers", TINY_DETR),
        ("maskrcnn_resnet50_fpn", "torchvision", TINY_RCNN),
    ],
)
def test_a_detector_is_timed_beside_its_peer(
    name: str, against: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(against)
    tiny(monkeypatch, settings)
    found = bench(name, against, batch=2, rounds=1)
    contract = "name peer mode device precision ours peer_best peer_default ratio_default ratio_best limit_fraction"
    assert set(contract.split()) <= set(found)
    assert found["ours"]["throughput"] == pytest.approx(2 / found["ours"]["median_s"])
    assert found["ratio_best"] == pytest.approx(found["peer_best"]["median_s"] / found["ours"]["median_s"])
    assert found["limit_fraction"] > 0 and "dense maps" in found["ours"]["how"]
    assert row(found).count("|") == 10


def test_a_detector_that_finds_other_objects_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    tiny(monkeypatch, TINY_DETR)
    plain = peers.load_official

    def wrong(model: Any, *rest: Any) -> Any:
        found = plain(model, *rest)
        nn.init.normal_(model.class_head.weight)
        return found

    monkeypatch.setattr(peers, "load_official", wrong)
    with pytest.raises(OrchardError, match=r"ours in float32 differs from the peer .* nothing was timed"):
        bench("detr_resnet50", "transformers", rounds=1)


def test_objects_are_compared_by_their_boxes_too() -> None:
    scores, labels = torch.tensor([0.9, 0.8, 0.3]), torch.tensor([1, 2, 3])
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 40, 9], [5, 5, 9, 9]])
    expected, order = [Found(scores, labels, boxes)], torch.tensor([2, 0, 1])
    peers.same_objects("ours", [Found(scores[order], labels[order], boxes[order])], expected)
    with pytest.raises(OrchardError, match="ours has only 67% of the peer's boxes"):
        peers.same_objects("ours", [Found(scores, labels, boxes + torch.tensor([[0.0], [0], [9]]))], expected)
    with pytest.raises(OrchardError, match="ours finds 2 objects, the peer 3"):
        peers.same_objects("ours", [Found(scores[:2], labels[:2], boxes[:2])], expected)


def test_what_cannot_be_timed_is_said() -> None:
    with pytest.raises(UsageError, match="transformers has no network of the shape of detr_nano"):
        bench("detr_nano", "transformers")
    with pytest.raises(UsageError, match="torchvision has no faster_rcnn_nano"):
        bench("faster_rcnn_nano", "torchvision")
    with pytest.raises(UsageError, match="unknown peer of a detector 'timm'"):
        bench("detr_resnet50", "timm")
    with pytest.raises(UsageError, match="--mode inference is timed"):
        bench("detr_resnet50", "transformers", "training")
    with pytest.raises(UsageError, match="leave --precision out"):
        bench("detr_resnet50", "transformers", precision="bf16")


def test_dense_maps_are_made_fast_when_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.Size] = []

    def fake(model: nn.Module, images: torch.Tensor, **_: Any) -> FastModel:
        made.append(images.shape)
        return FastModel(model, "fp32", "compiled", len(images))

    monkeypatch.setattr(fast_maps, "make_fast", fake)
    said: list[str] = []
    model = create_model("faster_rcnn_nano").eval()
    quick: Any = fast_maps.with_fast_maps(model, patience=100.0, say=said.append)
    images = torch.randn(2, 3, 64, 80)
    with torch.no_grad():
        expected, plain = model(images), quick(images)
        assert not made and torch.equal(plain.region_logits, expected.region_logits)
        quick.dense_maps.spent[(2, 3, 64, 80)] = 501.0  # seconds, of which a fifth would have been saved
        for _ in range(2):
            assert torch.equal(quick(images).region_logits, expected.region_logits)
        quick(images[:1])  # another shape, for which nothing was spent
    assert made == [images.shape] and said == ["looking for the fastest way to run images of 80 x 64", "compiled"]
    assert "dense_maps" not in vars(model)
