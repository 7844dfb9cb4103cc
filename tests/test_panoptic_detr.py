"""Panoptic DETR against the tensors of the official code: names, masks' losses and their gradients, merging."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orchard.cards import card_of
from orchard.data.batches import Padded, Ragged
from orchard.data.panoptic.loader import PanopticBatch
from orchard.models import create_model
from orchard.models.detection.contract import Detections
from orchard.models.detection.detr import Looked
from orchard.models.detection.detr_panoptic_names import hf_hub_names, official_names
from orchard.tasks.object_detection.settings import DetectionSettings
from orchard.tasks.panoptic_segmentation.merging import likely, merge
from orchard.tasks.panoptic_segmentation.objective import PanopticSegmentation
from orchard.tasks.panoptic_segmentation.settings import PanopticSettings
from orchard.weights.names import foreign_names, to_ours
from orchard.weights.official import export_official, read_official
from orchard.weights.portable import read_tensors

CASE = "criterion_postprocess"


def case(golden: Path) -> dict[str, Tensor]:
    return read_tensors(golden / "detr" / CASE / "io.safetensors")


def close(found: Tensor, expected: Tensor, share: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, atol=share * float(expected.abs().max()), rtol=0)


class Stored:
    """A model whose masks are those of the case."""

    def __init__(self, masks: Tensor):
        self.all = masks

    def masks(self, looked: Looked, pictures: Tensor, queries: Tensor) -> Tensor:
        return self.all[pictures, queries]


def test_names_and_shapes_are_the_official_ones(golden: Path) -> None:
    stated = json.loads((golden / "detr" / "names_detr_resnet50_panoptic.json").read_text())
    for name in ("detr_r50_panoptic", "detr_r50_dc5_panoptic"):
        with torch.device("meta"):
            model = create_model(name)
            theirs = {key: torch.empty(shape) for key, shape in stated["tensors"].items()}
        ours = model.state_dict()
        found = to_ours(official_names(model.config), theirs, ours)  # type: ignore[arg-type]
        assert {key: tensor.shape for key, tensor in found.items()} == {key: t.shape for key, t in ours.items()}
        assert sum(p.numel() for p in model.parameters()) == 42_899_288 == card_of(name).variants[name].parameters


def test_names_of_the_hub_are_those_of_its_files() -> None:
    with torch.device("meta"):
        model: Any = create_model("detr_r50_panoptic")
    expected = {
        "mask_head.blocks.4.1.weight": "mask_head.gn5.weight",
        "mask_head.adapters.2.bias": "mask_head.adapter3.bias",
        "mask_attention.key.weight": "bbox_attention.k_linear.weight",
        "detector.box_head.4.bias": "detr.bbox_predictor.layers.2.bias",
        "detector.trunk.conv1.weight": "detr.model.backbone.conv_encoder.model.conv1.weight",
    }
    for ours, theirs in expected.items():
        assert foreign_names(hf_hub_names(model.config), ours)[1] == (theirs,)


def test_a_checkpoint_says_how_many_classes_and_queries_it_has() -> None:
    trunk = {"depths": (1, 1, 1, 1), "widths": (8, 16, 24, 32), "stem_width": 8}
    sizes: dict[str, Any] = {"width": 128, "hidden": 16, "encoder_layers": 1, "decoder_layers": 1}
    trained = create_model("detr_r50_panoptic", trunk_settings=trunk, num_classes=4, queries=6, **sizes)
    found = read_official(
        "detr_r50_panoptic", export_official(trained, "official"), "official", {"trunk_settings": trunk, **sizes}
    )
    assert found.model.config == trained.config


def test_losses_of_masks_and_their_gradients_are_the_official_ones(golden: Path) -> None:
    """The whole criterion, with a picture without objects, whose total weighs the masks' losses by 1."""
    tensors = case(golden)
    names = ("pred_logits", "pred_boxes", "pred_masks")
    logits, boxes, masks = given = [tensors[f"in.{name}"].requires_grad_() for name in names]
    earlier = tuple(Detections(tensors[f"in.aux{n}.pred_logits"], tensors[f"in.aux{n}.pred_boxes"]) for n in range(2))
    nothing = torch.zeros(3, 20, 1)
    looked = Looked(Detections(logits, boxes, earlier), [], nothing, nothing, nothing, nothing)
    batch = as_batch(tensors)
    objective = PanopticSegmentation(DetectionSettings(), PanopticSettings(), [True] * 11)
    found = objective.losses(Stored(masks), looked, batch)
    close(found.focal, tensors["out.loss.loss_mask"])
    close(found.dice, tensors["out.loss.loss_dice"])
    close(found.total, tensors["out.loss.weighted_total"])
    for name, gradient in zip(names, torch.autograd.grad(found.total, given), strict=True):
        close(gradient, tensors[f"out.grad_total.{name}"])


def as_batch(tensors: dict[str, Tensor]) -> PanopticBatch:
    """The targets of the case, whose masks overlap, so that each picture's map would not hold them."""
    height, width = 36, 44
    return PanopticBatch(
        Padded(torch.zeros(3, 3, 1, 1), torch.ones(3, 1, 1, dtype=torch.bool)),
        OverlappingMaps([tensors[f"in.target{n}.masks"] for n in range(3)], height, width),  # type: ignore[arg-type]
        *(Ragged.of([tensors[f"in.target{n}.{what}"] for n in range(3)]) for what in ("labels", "boxes")),
        Ragged.of([torch.zeros(len(tensors[f"in.target{n}.labels"]), dtype=torch.bool) for n in range(3)]),
        torch.arange(3),
    )


class OverlappingMaps:
    """Answers `maps[pictures] == numbers` with masks of pictures that may overlap."""

    def __init__(self, masks: list[Tensor], height: int, width: int):
        self.masks = [
            torch.nn.functional.pad(one, (0, width - one.shape[2], 0, height - one.shape[1])) for one in masks
        ]

    def __getitem__(self, pictures: Tensor) -> OverlappingMaps:
        chosen = OverlappingMaps([], 0, 0)
        chosen.masks = [self.masks[n] for n in pictures.tolist()]
        return chosen

    def __eq__(self, numbers: object) -> Tensor:  # type: ignore[override]
        assert isinstance(numbers, Tensor)
        pairs = zip(self.masks, numbers.flatten().tolist(), strict=True)
        return torch.stack([masks[number - 1] for masks, number in pairs])


def test_merging_is_the_official_one(golden: Path) -> None:
    """To the pixel: a class counts as a thing when its number is odd; ids there begin at 0."""
    tensors = case(golden)
    things = [bool(n % 2) for n in range(11)]
    for n in range(3):
        logits, masks = tensors["in.pred_logits"][n], tensors["in.pred_masks"][n]
        queries = likely(logits, 0.4)
        seen, stored = (tuple(tensors[f"in.{name}"][n].tolist()) for name in ("padded_before_sizes", "orig_sizes"))
        found = merge(logits[queries], masks[queries], things, seen, stored)  # type: ignore[arg-type]
        rows = tensors[f"out.panoptic{n}.segments_id_isthing_category_area"]
        assert torch.equal(torch.from_numpy(found.map) - 1, tensors[f"out.panoptic{n}.id_map"])
        areas = torch.bincount(torch.from_numpy(found.map).flatten(), minlength=len(rows) + 1)[1:]
        assert found.labels.tolist() == rows[:, 2].tolist() and areas.tolist() == rows[:, 3].tolist()
