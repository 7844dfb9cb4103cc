"""Speed of detectors beside their peers: DETR beside transformers, Faster and Mask R-CNN beside torchvision.

Both sides get the same weights and the same normalised images without padding, are shown to find the same objects, and
are then timed turn by turn in one process, from images to boxes in pixels. Masks are drawn in their boxes on both
sides; that torchvision pastes them on the image before it answers is left out.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from orchard.cards import Reference
from orchard.errors import OrchardError, UsageError, unknown
from orchard.inference.cost import multiply_adds
from orchard.inference.fast import TOLERANCE
from orchard.inference.fast_maps import with_fast_maps
from orchard.inference.timing import MATRIX, Side, check, compared, matrix_product, time_in_turn
from orchard.models import create_model, picture_size
from orchard.models.detection.contract import Found
from orchard.models.vision.trunk import freeze_batch_norms
from orchard.weights.official import load_official
from orchard.weights.reference import build_reference, randomise

SAME_BOX, SAME_SHARE = 0.9, 0.95  # least IoU of one answer with the peer's, and least share of answers with such a one
Finder = Callable[[Tensor], list[Found]]  # of normalised images (B, C, H, W)


def bench(
    name: str, against: str, mode: str, *, batch: int | None, precision: Any, rounds: int | None, tokens: int
) -> dict[str, Any]:
    """Time inference. Training steps are not: each side of Faster R-CNN draws its own sample of regions, so that two
    steps do not compute the same thing."""
    if mode != "inference":
        raise UsageError(f"{name} finds objects; --mode inference is timed")
    if precision == "bf16":
        raise UsageError("detectors are timed in float32, as predict runs them on a processor: leave --precision out")
    return bench_detector(name, against, batch=batch or 1, rounds=rounds or 5)


def bench_detector(name: str, against: str, *, batch: int = 1, rounds: int = 5) -> dict[str, Any]:
    """Time variant `name` beside `against`, transformers or torchvision, on images of the variant's own size.

    Ours is what `predict` does once many images of one size have come. The peer by default runs eagerly in float32; at
    its best it is channels-last and compiled with frozen weights, as far as it compiles. Raises UsageError where the
    library has no such network, OrchardError where the sides disagree.
    """
    if against not in PEERS:
        raise unknown("peer of a detector", against, list(PEERS))
    torch.manual_seed(0)
    model: Any = create_model(name).eval()
    peer = PEERS[against](name, model)
    images = torch.randn(batch, model.config.in_channels, *picture_size(model.config))
    randomise(peer.network, lambda: peer.documented(images[:1]), seed=0)
    load_official(model, peer.network.state_dict(), peer.source)
    sides, how = _sides(model, peer, images)
    medians = time_in_turn({**sides, "matrix": matrix_product("fp32")}, rounds)
    rate = 2 * MATRIX**3 / medians["matrix"]
    return {
        **compared(name, peer.reference, medians, how, samples=batch),
        "mode": "inference", "precision": "fp32", "batch": batch, "rounds": rounds,
        "matrix_rate": rate,
        "limit_fraction": 2 * multiply_adds(model, images.shape) / medians["ours"] / rate,
    }  # fmt: skip


@torch.no_grad()
def _sides(model: Any, peer: Peer, images: Tensor) -> tuple[dict[str, Side], dict[str, str]]:
    """What is timed, and in words how each side runs; all of it compared with the peer in float32 first."""
    sizes = torch.tensor([images.shape[2:]]).expand(len(images), 2)
    expected = peer.documented(images)
    same_objects("ours in float32", model(images).found(sizes), expected)
    fast: Any = with_fast_maps(model, patience=0.0, say=lambda line: None)
    same_objects("ours made fast", fast(images).found(sizes), expected)
    best, switches = peer.best()
    packed = images.contiguous(memory_format=torch.channels_last)
    same_objects(f"the peer ({switches})", best(packed), expected)
    calls: dict[str, tuple[Finder, Tensor]] = {
        "ours": (lambda given: fast(given).found(sizes), images),
        "peer_best": (best, packed), "peer_default": (peer.documented, images),
    }  # fmt: skip

    def side(find: Finder, given: Tensor) -> Side:
        def once() -> list[Found]:
            with torch.no_grad():
                return find(given)

        return once

    how = {"ours": f"fp32; dense maps: {fast.dense_maps.how}", "peer_best": switches, "peer_default": "eager float32"}
    return {key: side(*call) for key, call in calls.items()}, how


def same_objects(who: str, ours: list[Found], expected: list[Found]) -> None:
    """Raise OrchardError unless both find the same objects on every image.

    Their scores in order must agree closely. Of two boxes with nearly the same score rounding may choose either, so a
    few answers may be without their like.
    """
    for mine, theirs in zip(ours, expected, strict=True):
        if mine.scores.shape != theirs.scores.shape:
            raise OrchardError(
                f"{who} finds {len(mine.scores)} objects, the peer {len(theirs.scores)}; nothing was timed"
            )
        if not len(mine.scores):
            raise OrchardError(f"{who} and the peer find nothing, so nothing is compared; nothing was timed")
        check(who, mine.scores.sort().values, theirs.scores.sort().values, 10 * TOLERANCE["fp32"])
        alike = (box_iou(theirs.boxes, mine.boxes) > SAME_BOX) & (theirs.labels[:, None] == mine.labels)
        share = float(alike.any(1).float().mean())
        if share < SAME_SHARE:
            raise OrchardError(f"{who} has only {share:.0%} of the peer's boxes; nothing was timed")


class Peer(ABC):
    """Another library's detector: its network, which names its weights have, and how it finds objects."""

    source: str
    reference: str
    network: Any

    @abstractmethod
    def documented(self, images: Tensor) -> list[Found]:
        """As its documentation says to use it."""

    @abstractmethod
    def best(self) -> tuple[Finder, str]:
        """The same with every public switch that helps, and these in words."""


class Transformers(Peer):
    source, reference = "hf", "hf:DetrForObjectDetection"

    def __init__(self, name: str, model: Any):
        self.network = build_reference(Reference(self.reference, self.source, name, theirs=_detr_settings(name, model)))

    def documented(self, images: Tensor) -> list[Found]:
        return self._found(self.network, images)

    def best(self) -> tuple[Finder, str]:
        network = copy.deepcopy(self.network).to(memory_format=torch.channels_last)
        compiled = torch.compile(network, options={"freezing": True})
        return lambda images: self._found(compiled, images), "channels-last, compiled, frozen"

    @staticmethod
    def _found(network: Any, images: Tensor) -> list[Found]:
        """What its processor makes of the logits: the likeliest class of each query, boxes in pixels."""
        said = network(pixel_values=images)
        scores, labels = said.logits.softmax(-1)[..., :-1].max(-1)
        x, y, w, h = said.pred_boxes.unbind(-1)
        height, width = images.shape[2:]
        boxes = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)
        boxes = boxes * boxes.new_tensor([width, height, width, height])
        return [Found(*one) for one in zip(scores, labels, boxes, strict=True)]


def _detr_settings(name: str, model: Any) -> dict[str, Any]:
    c = model.config
    trunk = dict(getattr(c, "trunk_settings", ()))
    fits = type(model).__name__ == "DETR" and (c.norm, c.position) == ("post", "sine") and c.frozen_norm
    if not fits or trunk.keys() - {"dilated_stages"}:
        raise UsageError(
            f"transformers has no network of the shape of {name}; detr_resnet50 and its sizes, and Faster and Mask "
            "R-CNN beside torchvision, can be timed"
        )
    return {
        "backbone": c.trunk, "dilation": bool(trunk), "d_model": c.width, "num_queries": c.queries,
        "num_labels": c.num_classes, "encoder_layers": c.encoder_layers, "decoder_layers": c.decoder_layers,
        "encoder_attention_heads": c.heads, "decoder_attention_heads": c.heads,
        "encoder_ffn_dim": c.hidden, "decoder_ffn_dim": c.hidden,
    }  # fmt: skip


class Torchvision(Peer):
    source = "torchvision"

    def __init__(self, name: str, model: Any):
        from torchvision.models import detection

        build, c = getattr(detection, name, None), model.config
        if build is None:
            raise UsageError(
                f"torchvision has no {name}; it has fasterrcnn_resnet50_fpn, maskrcnn_resnet50_fpn and a v2 of each"
            )
        self.reference = f"torchvision:{name}"
        height, width = picture_size(c)
        self.network = build(
            weights=None, weights_backbone=None, num_classes=c.num_classes + 1,
            rpn_pre_nms_top_n_test=c.candidates[1], rpn_post_nms_top_n_test=c.proposals[1],
            box_score_thresh=c.least_score, box_detections_per_img=c.most_answers,
            min_size=min(height, width), max_size=max(height, width),
            image_mean=[0.0] * c.in_channels, image_std=[1.0] * c.in_channels,
        ).eval()  # fmt: skip
        # The images have their final size: nothing is scaled back, and masks stay in their boxes, as ours do.
        self.network.transform.postprocess = _as_it_is
        if c.frozen_norm:  # as it builds them for its own weights
            freeze_batch_norms(self.network.backbone, c.frozen_norm_eps)

    def documented(self, images: Tensor) -> list[Found]:
        return self._found(self.network, images)

    def best(self) -> tuple[Finder, str]:
        """How many boxes are left depends on the image, which a frozen graph cannot say: what stands around that is
        compiled."""
        network = copy.deepcopy(self.network).to(memory_format=torch.channels_last)
        network.backbone = torch.compile(network.backbone, options={"freezing": True})
        network.rpn.head = torch.compile(network.rpn.head, options={"freezing": True})
        words = "channels-last; trunk, pyramid and proposal head compiled, frozen"
        return lambda images: self._found(network, images), words

    @staticmethod
    def _found(network: nn.Module, images: Tensor) -> list[Found]:
        return [Found(one["scores"], one["labels"] - 1, one["boxes"]) for one in network(list(images))]


def _as_it_is(result: list[dict[str, Tensor]], *sizes: object) -> list[dict[str, Tensor]]:
    return result


PEERS: dict[str, Callable[[str, Any], Peer]] = {"transformers": Transformers, "torchvision": Torchvision}
