"""DETR: end-to-end object detection with transformers (Carion et al. 2020, arXiv:2005.12872).

A trunk makes a map of the picture, a transformer encoder lets its cells see each other, and a decoder turns learned
object queries into a fixed number of boxes, all at once: no anchors and no suppression of doubles. Legend: B pictures,
S cells of the map, Q queries, D width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.detection.contract import Detections, check_padding, example
from orchard.models.detection.detr_names import CONFIG_JSON, NAMES, infer_config
from orchard.models.vision.trunk import Settings, Trunk, create_trunk, freeze_batch_norms, frozen_settings
from orchard.nn.attention import Attention
from orchard.nn.checks import check_images
from orchard.nn.position import LearnedGrid, SineGrid
from orchard.nn.transformer import DecoderBlock, Mlp, PostNormBlock, PreNormBlock, post_norm, pre_norm


@dataclass(frozen=True)
class DETRConfig:
    trunk: str = "resnet50"  # a classifier's name
    trunk_settings: Settings | Mapping[str, Any] = ()  # fields of its configuration that differ from that name's
    frozen_norm: bool = True  # the trunk's batch norms are constants, as of a trunk that was trained before
    width: int = 256
    heads: int = 8
    hidden: int = 2048  # units in the MLP of each block
    encoder_layers: int = 6
    decoder_layers: int = 6
    queries: int = 100  # the most objects that are found in a picture
    norm: str = "post"  # where norms stand in the blocks: "post", behind the sum, or "pre", before each branch
    position: str = "sine"  # encoding of the cells: "sine" or "learned"
    position_span: float = 2 * math.pi  # of sines: what the last row and column are scaled to
    position_temperature: float = 10000.0  # of sines: ratio of the longest period to the shortest
    dropout: float = 0.1  # of attention weights, hidden units and what each branch adds
    image_size: int | tuple[int, int] = (800, 1066)  # what sizes are counted at; pictures may have any
    in_channels: int = 3
    num_classes: int = 91  # "no object" is one more

    def __post_init__(self) -> None:
        object.__setattr__(self, "trunk_settings", frozen_settings(self.trunk_settings))
        for name, known in (("norm", ("post", "pre")), ("position", ("sine", "learned"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"a width of {self.width} does not divide into {self.heads} heads and four kinds of waves")
        for name in ("queries", "decoder_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")


class DetectionTransformer(nn.Module):
    """The encoder and the decoder (section 3.2, figure 10)."""

    def __init__(self, config: DETRConfig):
        super().__init__()
        self.config = c = config
        self.encoder = nn.ModuleList(self._encoder_block() for _ in range(c.encoder_layers))
        self.encoder_norm = self._norm() if c.norm == "pre" else nn.Identity()
        self.decoder = nn.ModuleList(self._decoder_block() for _ in range(c.decoder_layers))
        self.decoder_norm = self._norm()
        for parameter in self.parameters():  # as the official code
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def _norm(self) -> nn.LayerNorm:
        return nn.LayerNorm(self.config.width, eps=1e-5)

    def _attention(self) -> Attention:
        c = self.config
        attention = Attention(c.width, c.heads, bias=True, causal=False, dropout=c.dropout, out_dropout=c.dropout)
        for layer in (attention.qkv, attention.out):
            nn.init.zeros_(layer.bias)
        return attention

    def _mlp(self) -> Mlp:
        c = self.config
        return Mlp(c.width, c.hidden, nn.ReLU(), hidden_dropout=c.dropout, out_dropout=c.dropout)

    def _encoder_block(self) -> nn.Module:
        parts = self._norm(), self._attention(), self._norm(), self._mlp()
        return PreNormBlock(*parts, drop_path=0.0) if self.config.norm == "pre" else PostNormBlock(*parts)

    def _decoder_block(self) -> nn.Module:
        parts = self._norm(), self._attention(), self._norm(), self._attention(), self._norm(), self._mlp()
        return DecoderBlock(*parts, residual=pre_norm if self.config.norm == "pre" else post_norm)

    def forward(self, cells: Tensor, positions: Tensor, visible: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Cells and their positions (B, S, D), visible (B, S) bool and queries (Q, D), to the states of all queries
        after each decoder layer, normed, (L, B, Q, D), and the encoder's memory (B, S, D).

        Positions are added to queries and keys in every layer, never to values. Object queries are the positions of
        the decoder, whose content begins at zero.
        """
        mask = visible[:, None, None]  # (B, heads, T, S)
        memory = cells
        for block in self.encoder:
            memory = block(memory, mask, positions=positions)
        memory = self.encoder_norm(memory)
        queries = queries.expand(cells.shape[0], -1, -1)
        x, states = torch.zeros_like(queries), []
        for block in self.decoder:
            x = block(x, memory, memory_mask=mask, positions=queries, memory_positions=positions)
            states.append(self.decoder_norm(x))
        return torch.stack(states), memory


@dataclass(frozen=True)
class Looked:
    """What DETR makes of pictures, and what it is found from."""

    found: Detections
    maps: list[Tensor]  # of the trunk, finest first
    features: Tensor  # (B, D, h, w): the last of them, projected
    memory: Tensor  # (B, S, D): the encoder's, of S = h w cells
    visible: Tensor  # (B, S) bool: cells that are no padding
    states: Tensor  # (B, Q, D): the queries' after the last decoder layer


class DETR(nn.Module):
    """Pictures (B, C, H, W), normalised, padded to one size, to `Detections` (section 3.2)."""

    head_name = "class_head"

    def __init__(self, config: DETRConfig, trunk: Trunk):
        """Of the trunk's feature maps the last is used."""
        super().__init__()
        self.config = c = config
        self.trunk: Trunk = trunk
        self.projection = nn.Conv2d(trunk.channels[-1], c.width, 1)
        self.position: SineGrid | LearnedGrid
        if c.position == "sine":
            self.position = SineGrid(c.width, temperature=c.position_temperature, span=c.position_span, eps=1e-6)
        else:
            self.position = LearnedGrid(c.width, cells=50)
        self.queries = nn.Parameter(torch.randn(c.queries, c.width))
        self.transformer = DetectionTransformer(c)
        self.class_head = nn.Linear(c.width, c.num_classes + 1)
        self.box_head = nn.Sequential(
            nn.Linear(c.width, c.width), nn.ReLU(), nn.Linear(c.width, c.width), nn.ReLU(), nn.Linear(c.width, 4)
        )

    def forward(self, images: Tensor, padding_mask: Tensor | None = None) -> Detections:
        """`padding_mask` (B, H, W) bool is true where there is no picture; none: pictures without padding."""
        if padding_mask is not None:
            return self.look(images, padding_mask).found
        check_images(images, self.config.in_channels)
        return detections(*(one.transpose(0, 1) for one in self.dense_maps(images)))

    def dense_maps(self, images: Tensor) -> list[Tensor]:
        """Of pictures without padding all that is found: logits (B, L, Q, K + 1) and boxes (B, L, Q, 4) of L decoder
        layers."""
        found = self.look(images).found
        layers = (*found.auxiliary, found)
        return [torch.stack([one.logits for one in layers], 1), torch.stack([one.boxes for one in layers], 1)]

    def look(self, images: Tensor, padding_mask: Tensor | None = None) -> Looked:
        """What is found, and all that a head for masks is made from."""
        check_images(images, self.config.in_channels)
        if padding_mask is None:
            padding_mask = torch.zeros_like(images[:, 0], dtype=torch.bool)
        check_padding(padding_mask, images)
        maps = self.trunk.feature_maps(images)
        features = self.projection(maps[-1])  # (B, D, h, w)
        padding = F.interpolate(padding_mask[:, None].float(), size=features.shape[2:])[:, 0].bool()  # (B, h, w)
        positions = self.position(padding).to(features.dtype).flatten(1, 2)
        cells, visible = features.flatten(2).transpose(1, 2), ~padding.flatten(1)
        states, memory = self.transformer(cells, positions, visible, self.queries)
        found = detections(self.class_head(states), self.box_head(states).sigmoid())
        return Looked(found, maps, features, memory, visible, states[-1])

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the heads, for layer-wise learning rates."""
        gone = tuple(f"{layer}." for layer in self.trunk.classifier_layers)
        groups = ([prefix for prefix in group if prefix not in gone] for group in self.trunk.layer_groups())
        trunk = [tuple(f"trunk.{prefix}" for prefix in group) for group in groups if group]
        encoder = [(f"transformer.encoder.{i}.",) for i in range(self.config.encoder_layers)]
        decoder = [(f"transformer.decoder.{i}.",) for i in range(self.config.decoder_layers)]
        first = ("projection.", "position.", "queries")
        norms = ("transformer.encoder_norm.", "transformer.decoder_norm.")
        return [*trunk, first, *encoder, *decoder, (*norms, "class_head.", "box_head.")]


def detections(logits: Tensor, boxes: Tensor) -> Detections:
    """What is found after the last decoder layer, with that after the earlier ones; both (L, B, Q, ...)."""
    *earlier, last = (Detections(*pair) for pair in zip(logits, boxes, strict=True))
    return Detections(last.logits, last.boxes, tuple(earlier))


def build(config: DETRConfig) -> DETR:
    trunk = create_trunk(config.trunk, {"in_channels": config.in_channels, **dict(config.trunk_settings)})
    if config.frozen_norm:
        freeze_batch_norms(trunk)
    return DETR(config, trunk)


DC5 = (("dilated_stages", 1),)  # the last stage is dilated in place of its stride: a map of twice the resolution
VARIANTS = {
    "detr_resnet50": DETRConfig("resnet50"),
    "detr_resnet50_dc5": DETRConfig("resnet50", DC5),
    "detr_resnet101": DETRConfig("resnet101"),
    "detr_resnet101_dc5": DETRConfig("resnet101", DC5),
    # ours: a shallow trunk trained from the start, and waves short enough to tell the cells of a narrow model apart
    "detr_nano": DETRConfig(
        "resnet_nano",
        {"stem": "7x7", "stem_width": 32, "depths": (1, 1), "widths": (32, 64)},
        frozen_norm=False,
        width=64,
        heads=4,
        hidden=128,
        encoder_layers=2,
        decoder_layers=3,
        queries=12,
        norm="pre",
        position_span=8 * math.pi,
        position_temperature=50.0,
        dropout=0.0,
        image_size=(64, 80),
        num_classes=10,
    ),
}
LANDMARK = Landmark(
    model=build, variants=VARIANTS, names=NAMES, infer_config=infer_config, config_json=CONFIG_JSON, example=example
)
