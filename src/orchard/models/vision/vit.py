"""ViT: an image is worth 16x16 words (Dosovitskiy et al. 2020, arXiv:2010.11929).

A picture is cut into patches, each patch becomes a token by one linear map, a learned table says where it
stood, and a pre-norm transformer encoder does the rest. Legend: B pictures, T tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.nn.attention import SelfAttention
from orchard.nn.checks import check_images
from orchard.nn.position import resize_position_grid
from orchard.nn.transformer import Mlp, PreNormBlock


@dataclass(frozen=True)
class ViTConfig:
    width: int
    depth: int
    heads: int
    patch: int
    image_size: int | tuple[int, int] = 224
    in_channels: int = 3
    num_classes: int = 1000
    pool: str = "token"  # "token": the class token's last state; "mean": the mean over patches
    mlp_ratio: float = 4.0
    pre_logits: int = 0  # width of the extra tanh layer of the ImageNet-21k checkpoints; 0: none
    tanh_gelu: bool = False  # Google's JAX code uses the tanh form, every PyTorch port the exact one
    norm_eps: float = 1e-6
    dropout: float = 0.0
    drop_path: float = 0.0  # rate of the last block; earlier ones less, linearly

    @property
    def image_hw(self) -> tuple[int, int]:
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def grid(self) -> tuple[int, int]:
        h, w = self.image_hw
        if h % self.patch or w % self.patch:
            raise ValueError(f"a picture of {h}x{w} does not divide into patches of {self.patch}")
        return h // self.patch, w // self.patch


class ViT(nn.Module):
    """Pictures (B, C, H, W), normalised, to logits (B, num_classes)."""

    head_name = "head"

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config = c = config
        self.patch_embed = nn.Conv2d(c.in_channels, c.width, kernel_size=c.patch, stride=c.patch)
        self.prefix = 1 if c.pool == "token" else 0
        if self.prefix:
            self.class_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.position = nn.Parameter(torch.empty(1, self.prefix + c.grid[0] * c.grid[1], c.width))
        self.dropout = nn.Dropout(c.dropout)
        self.blocks = nn.ModuleList(self._block(i) for i in range(c.depth))
        self.norm = nn.LayerNorm(c.width, eps=c.norm_eps)
        self.pre_logits = nn.Linear(c.width, c.pre_logits) if c.pre_logits else None
        self.head = nn.Linear(c.pre_logits or c.width, c.num_classes)
        self.initialise()

    def _block(self, index: int) -> PreNormBlock:
        c = self.config
        return PreNormBlock(
            nn.LayerNorm(c.width, eps=c.norm_eps),
            SelfAttention(c.width, c.heads, bias=True, out_dropout=c.dropout),
            nn.LayerNorm(c.width, eps=c.norm_eps),
            Mlp(c.width, int(c.width * c.mlp_ratio), nn.GELU("tanh" if c.tanh_gelu else "none"), dropout=c.dropout),
            drop_path=c.drop_path * index / max(c.depth - 1, 1),
        )

    @torch.no_grad()
    def initialise(self) -> None:
        """As the official code does: Xavier uniform matrices, a head of zeros, positions of spread 0.02."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for block in self.blocks:
            for linear in (block.mlp.fc1, block.mlp.fc2):
                nn.init.normal_(linear.bias, std=1e-6)
        nn.init.normal_(self.position, std=0.02)
        nn.init.zeros_(self.head.weight)

    def tokens(self, images: Tensor) -> Tensor:
        """The sequence that enters the encoder, (B, T, D), class token first."""
        check_images(images, self.config.in_channels, self.config.image_hw)
        x = self.patch_embed(images).flatten(2).transpose(1, 2)
        if self.prefix:
            x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
        return self.dropout(x + self.position)

    def features(self, images: Tensor) -> Tensor:
        """The last hidden states, (B, T, D)."""
        x = self.tokens(images)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, images: Tensor) -> Tensor:
        x = self.features(images)
        x = x[:, 0] if self.prefix else x.mean(dim=1)
        if self.pre_logits is not None:
            x = torch.tanh(self.pre_logits(x))
        return self.head(x)

    def attention_maps(self, images: Tensor) -> Tensor:
        """How much the pooled output looks at each patch in the last block, (B, heads, h, w)."""
        x = self.tokens(images)
        for block in self.blocks[:-1]:
            x = block(x)
        last = self.blocks[-1]
        weights = last.attention.weights(last.norm1(x))  # (B, heads, T, T)
        rows = weights[:, :, 0, 1:] if self.prefix else weights.mean(2)
        return rows.unflatten(-1, self.config.grid)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        blocks = [(f"blocks.{i}.",) for i in range(self.config.depth)]
        return [("patch_embed.", "class_token", "position"), *blocks, ("norm.", "pre_logits."), ("head.",)]

    def fit_state(self, state: dict[str, Tensor], saved: ViTConfig) -> dict[str, Tensor]:
        """Weights trained at another picture size, their position table stretched to this model's grid."""
        prefix = 1 if saved.pool == "token" else 0
        table = resize_position_grid(state["position"], saved.grid, self.config.grid, prefix)
        return state | {"position": table}


SIZES = {
    "tiny": dict(width=192, depth=12, heads=3),
    "small": dict(width=384, depth=12, heads=6),
    "base": dict(width=768, depth=12, heads=12),
    "large": dict(width=1024, depth=24, heads=16),
    "huge": dict(width=1280, depth=32, heads=16),
}

VARIANTS = {
    f"vit_{size}_patch{patch}_{image}": ViTConfig(**SIZES[size], patch=patch, image_size=image)
    for size in SIZES
    for patch in (8, 14, 16, 32)
    for image in ((224, 384) if patch in (16, 32) else (224,))
} | {
    "vit_nano": ViTConfig(width=64, depth=6, heads=4, patch=4, image_size=32, in_channels=1, num_classes=10, pool="mean"),
}


def timm_names(config: ViTConfig) -> list[tuple[str, str]]:
    return [
        ("patch_embed.{}", "patch_embed.proj.{}"),
        ("class_token", "cls_token"),
        ("position", "pos_embed"),
        ("blocks.{}.attention.qkv.{}", "blocks.{}.attn.qkv.{}"),
        ("blocks.{}.attention.out.{}", "blocks.{}.attn.proj.{}"),
        ("norm.{}", "fc_norm.{}" if config.pool == "mean" else "norm.{}"),
        ("{}", "{}"),
    ]


LANDMARK = Landmark(model=ViT, variants=VARIANTS, names={"timm": timm_names})
