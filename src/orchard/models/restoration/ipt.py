"""IPT: a transformer pre-trained on several ways to restore images (Chen et al. 2020, arXiv:2012.00364).

Each task has a head of convolutions before the transformer, a query of its own in the decoder, and a tail behind it.
The transformer, which all share, sees the head's features of a crop of fixed size as patches. Tasks of a scale above
one are super-resolution, those of one restore an image at its size: noise or rain taken away. Values are those of
8-bit pixels, as in EDSR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark, Rule
from orchard.models.restoration.contract import SuperResolver, example_at
from orchard.models.restoration.edsr import RANGE, MeanShift
from orchard.nn.attention import Attention
from orchard.nn.checks import check_images
from orchard.nn.overlapping_crops import by_crops
from orchard.nn.sub_pixel import ConvResidual, SubPixelConv, factors_of
from orchard.nn.transformer import DecoderBlock, Mlp, PreNormBlock, pre_norm

POSITIONS = ("none", "input", "every")


@dataclass(frozen=True)
class IPTConfig:
    tasks: tuple[int, ...] = (2, 3, 4, 1, 1, 1)  # the scale of each; the paper's of 1 are two of noise and one of rain
    crop: int = 48  # pixels a side of the images that it computes as one
    patch: int = 3  # pixels a side of a token
    width: int = 64  # channels of heads and tails; a token has width x patch²
    heads: int = 12
    layers: int = 12  # of the encoder, and as many of the decoder
    position: str = "input"  # where positions are added: to the tokens, in every layer to queries and keys, or nowhere
    projections: bool = True  # a linear layer before the transformer, an MLP behind it, and queries

    def __post_init__(self) -> None:
        for scale in self.tasks:
            if scale != 1:
                factors_of(scale)
        if not self.tasks:
            raise ValueError("tasks are empty; expected the scale of each task")
        if self.crop % 4 or self.crop % self.patch:
            raise ValueError(f"a crop of {self.crop} pixels does not divide by 4 and into patches of {self.patch}")
        if self.token_width % self.heads:
            raise ValueError(f"tokens of {self.token_width} numbers do not divide into {self.heads} heads")
        if self.position not in POSITIONS:
            raise ValueError(f"position is one of {', '.join(POSITIONS)}, got {self.position!r}")

    @property
    def token_width(self) -> int:
        return self.width * self.patch**2

    @property
    def tokens(self) -> int:
        return (self.crop // self.patch) ** 2


class PatchTransformer(nn.Module):
    """Features (B, C, crop, crop) to features of the same shape, for one of the tasks (section 3.1)."""

    def __init__(self, config: IPTConfig):
        super().__init__()
        self.config = c = config
        width = c.token_width

        def mlp() -> Mlp:
            return Mlp(width, 4 * width, nn.ReLU())

        if c.projections:
            self.project = nn.Linear(width, width)
            self.head = mlp()
            self.queries = nn.Parameter(torch.randn(len(c.tasks), c.tokens, width))
        if c.position != "none":
            self.positions = nn.Parameter(torch.randn(c.tokens, width))

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(width, eps=1e-5)

        def attention() -> Attention:
            return Attention(width, c.heads, bias=False, causal=False)

        def decoder_attention() -> Attention:
            layer = attention()
            nn.init.xavier_uniform_(layer.qkv.weight)  # torch's own start, which the official encoder replaces
            return layer

        def decoder_block() -> DecoderBlock:
            parts = norm(), decoder_attention(), norm(), decoder_attention(), norm(), mlp()
            return DecoderBlock(*parts, residual=pre_norm)

        layers = range(c.layers)
        self.encoder = nn.ModuleList(PreNormBlock(norm(), attention(), norm(), mlp(), drop_path=0.0) for _ in layers)
        self.decoder = nn.ModuleList(decoder_block() for _ in layers)

    def forward(self, features: Tensor, task: int) -> tuple[Tensor, Tensor]:
        """The restored features, and the tokens (B, T, D) that they are laid out from."""
        c, queries, everywhere = self.config, None, None
        x = F.pixel_unshuffle(features, c.patch).flatten(2).transpose(1, 2)  # (B, T, D), channels first in a token
        if c.projections:
            x, queries = self.project(x) + x, self.queries[task]
        if c.position == "input":
            x = x + self.positions
        elif c.position == "every":
            everywhere = self.positions
        for block in self.encoder:
            x = block(x, positions=everywhere)
        memory = x
        for block in self.decoder:
            x = block(x, memory, positions=queries, memory_positions=everywhere)
        if c.projections:
            x = self.head(x) + x
        side = c.crop // c.patch
        return F.pixel_shuffle(x.transpose(1, 2).reshape(x.shape[0], -1, side, side), c.patch), x


class ImageProcessingTransformer(nn.Module):
    """RGB (B, 3, h, w) by any of the tasks, to (B, 3, s h, s w) where s is the task's scale, all in [0, 255]."""

    def __init__(self, config: IPTConfig):
        super().__init__()
        self.config = c = config
        self.sub_mean = MeanShift(-1)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(3, c.width, 3, padding=1), *(ConvResidual(c.width, 5, scale=1.0) for _ in range(2)))
            for _ in c.tasks
        )
        self.body = PatchTransformer(c)
        self.tails = nn.ModuleList(
            nn.Sequential(
                nn.Sequential(*(SubPixelConv(c.width, factor, bias=True) for factor in steps_of(scale))),
                nn.Conv2d(c.width, 3, 3, padding=1),
            )
            for scale in c.tasks
        )
        self.add_mean = MeanShift(1)

    @property
    def receptive_radius(self) -> None:
        return None

    @property
    def crop(self) -> int:
        return self.config.crop

    def perform(self, images: Tensor, task: int) -> Tensor:
        """Images (B, 3, h, w) by one of the tasks, counted from 0. Those that are no crops are computed from
        overlapping ones, smaller ones with their edges continued."""
        check_images(images, 3)
        (height, width), c = images.shape[2:], self.config
        if (height, width) == (c.crop, c.crop):
            return self.perform_crops(images, task)[0]
        missing = (max(c.crop - width, 0), max(c.crop - height, 0))
        padded = F.pad(images, (0, missing[0], 0, missing[1]), mode="replicate")
        scale = c.tasks[task]
        large = by_crops(lambda crops: self.perform_crops(crops, task)[0], padded, c.crop, scale)
        return large[..., : height * scale, : width * scale]

    def perform_crops(self, images: Tensor, task: int) -> tuple[Tensor, Tensor]:
        """Crops (B, 3, crop, crop) by one of the tasks, and the tokens (B, T, D) behind the transformer."""
        x = self.heads[task](self.sub_mean(images))
        features, tokens = self.body(x, task)
        return cast(Tensor, self.add_mean(self.tails[task](features + x))), tokens

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output."""
        start = ("sub_mean.", "heads.", "body.project.", "body.positions", "body.queries")
        blocks = [(f"body.{stack}.{n}.",) for stack in ("encoder", "decoder") for n in range(self.config.layers)]
        return [start, *blocks, ("body.head.", "tails.", "add_mean.")]


class IPT(ImageProcessingTransformer, SuperResolver):
    """RGB (B, 3, h, w) to one image for each task of scale s, (B, 3, s h, s w), all in [0, 255]."""

    value_range = (0.0, RANGE)

    @property
    def scales(self) -> tuple[int, ...]:
        return tuple(sorted({scale for scale in self.config.tasks if scale > 1}))

    def upscale(self, images: Tensor, scale: int) -> Tensor:
        if scale not in self.scales:
            raise ValueError(f"expected a scale of {', '.join(map(str, self.scales))}, got {scale}")
        return self.perform(images, self.config.tasks.index(scale))

    def upscale_crops(self, images: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        """`perform_crops` by the task of this scale: what the contrastive loss is computed of."""
        return self.perform_crops(images, self.config.tasks.index(scale))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.perform(images, task) for task in range(len(self.config.tasks)))


def steps_of(scale: int) -> tuple[int, ...]:
    """`factors_of`, and none where the size stays."""
    return () if scale == 1 else factors_of(scale)


def example(config: Any, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    return {"images": example_at(3, config.crop, config.crop, count, generator)}


def official_names(config: IPTConfig) -> list[Rule | tuple[str, str]]:
    """The names of huawei-noah/Pretrained-IPT."""
    queries = Rule(
        "body.queries",
        ("body.query_embed.weight",),
        join=lambda flat: flat.view(len(flat), config.tokens, config.token_width),
        split=lambda queries: (queries.flatten(1),),
    )
    rules: list[Rule | tuple[str, str]] = [
        ("sub_mean.{}", "sub_mean.{}"),
        ("add_mean.{}", "add_mean.{}"),
        ("heads.{}.0.{}", "head.{}.0.{}"),
        ("heads.{}.{}.conv1.{}", "head.{}.{}.body.0.{}"),
        ("heads.{}.{}.conv2.{}", "head.{}.{}.body.2.{}"),
        ("body.encoder.{}.norm{}.{}", "body.encoder.layers.{}.norm{}.{}"),
        ("body.encoder.{}.mlp.fc{}.{}", "body.encoder.layers.{}.linear{}.{}"),
        ("body.encoder.{}.attention.qkv.weight", "body.encoder.layers.{}.self_attn.in_proj_weight"),
        ("body.encoder.{}.attention.out.weight", "body.encoder.layers.{}.self_attn.out_proj.weight"),
        ("body.decoder.{}.norm{}.{}", "body.decoder.layers.{}.norm{}.{}"),
        ("body.decoder.{}.mlp.fc{}.{}", "body.decoder.layers.{}.linear{}.{}"),
        ("body.decoder.{}.self_attention.qkv.weight", "body.decoder.layers.{}.self_attn.in_proj_weight"),
        ("body.decoder.{}.self_attention.out.weight", "body.decoder.layers.{}.self_attn.out_proj.weight"),
        ("body.decoder.{}.cross_attention.qkv.weight", "body.decoder.layers.{}.multihead_attn.in_proj_weight"),
        ("body.decoder.{}.cross_attention.out.weight", "body.decoder.layers.{}.multihead_attn.out_proj.weight"),
        *((f"tails.{{}}.0.{n}.conv.{{}}", f"tail.{{}}.0.{2 * n}.{{}}") for n in range(2)),
        ("tails.{}.1.{}", "tail.{}.1.{}"),
    ]
    if config.projections:
        projections = [("body.project.{}", "body.linear_encoding.{}"), ("body.head.fc1.{}", "body.mlp_head.0.{}")]
        rules += [*projections, ("body.head.fc2.{}", "body.mlp_head.3.{}"), queries]
    if config.position != "none":
        rules.append(("body.positions", "body.position_encoding.pe.weight"))
    return rules


VARIANTS = {
    "ipt_nano": IPTConfig((2, 3, 4), crop=24, width=16, heads=4, layers=2),
    "ipt": IPTConfig(),
    **{f"ipt_x{scale}": IPTConfig((scale,)) for scale in (2, 3, 4)},
}
NOT_WEIGHTS = {"official": ("body.position_encoding.position_ids",)}  # 0, 1, ... up to the number of tokens
LANDMARK = Landmark(
    model=IPT,
    variants=VARIANTS,
    names={"official": official_names},
    not_weights=NOT_WEIGHTS,
    example=example,
)
