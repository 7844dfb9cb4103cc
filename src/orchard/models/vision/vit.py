"""ViT: an image is worth 16x16 words (Dosovitskiy et al. 2020, arXiv:2010.11929).

A picture is cut into patches, each patch becomes a token by one linear map, a learned table says where it
stood, and a pre-norm transformer encoder does the rest. Legend: B pictures, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.vision.vit_hybrid import HybridStem, stem_stride
from orchard.models.vision.vit_names import CONFIG_JSON, NAMES, infer_config
from orchard.nn.attention import Attention
from orchard.nn.checks import check_images
from orchard.nn.position import resize_position_grid
from orchard.nn.transformer import Mlp, PreNormBlock

POOLS = ("token", "mean", "mean_norm")


@dataclass(frozen=True)
class ViTConfig:
    width: int
    depth: int
    heads: int
    patch: int  # side of a patch in pixels; after a hybrid stem, in cells of its feature map
    image_size: int | tuple[int, int] = 224  # one side, or height and width
    in_channels: int = 3
    num_classes: int = 1000
    class_token: bool = True  # a learned token stands before the patches
    pool: str = "token"  # "token": its last state; "mean": norm, then the mean over patches; "mean_norm": mean first
    mlp_ratio: float = 4.0
    pre_logits: int = 0  # width of the extra tanh layer of the ImageNet-21k checkpoints; 0: none
    tanh_gelu: bool = False  # Google's JAX code uses the tanh form, every PyTorch port the exact one
    norm_eps: float = 1e-6
    dropout: float = 0.0
    drop_path: float = 0.0  # rate of the last block; earlier ones less, linearly
    stem_stages: tuple[int, ...] | None = None  # the hybrid: units per stage of its ResNet; () is its root alone
    stem_width: int = 64

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise ValueError(f"pool is '{self.pool}', expected one of {', '.join(POOLS)}")
        if self.pool == "token" and not self.class_token:
            raise ValueError("pool = 'token' needs class_token = true; without one, pool = 'mean'")
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not divide into {self.heads} heads")
        if self.image_hw[0] % self.stride or self.image_hw[1] % self.stride:
            h, w = self.image_hw
            raise ValueError(f"a picture of {h}x{w} does not divide into patches of {self.stride} pixels")

    @property
    def image_hw(self) -> tuple[int, int]:
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def stride(self) -> int:
        """Pixels a side that one token stands for."""
        return self.patch if self.stem_stages is None else self.patch * stem_stride(self.stem_stages)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_hw[0] // self.stride, self.image_hw[1] // self.stride


class ViT(nn.Module):
    """Pictures (B, C, H, W), normalised, to logits (B, num_classes)."""

    head_name = "head"
    classifier_layers = ("pre_logits", "head")

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config = c = config
        self.stem: nn.Module = nn.Identity()
        channels = c.in_channels
        if c.stem_stages is not None:
            self.stem = stem = HybridStem(c.in_channels, c.stem_width, c.stem_stages)
            channels = stem.out_channels
        self.strides = (c.stride,)
        self.channels = (c.width,)
        self.patch_embed = nn.Conv2d(channels, c.width, kernel_size=c.patch, stride=c.patch)
        self.prefix = int(c.class_token)  # tokens that are no patches
        if c.class_token:
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
            Attention(c.width, c.heads, bias=True, causal=False, out_dropout=c.dropout),
            nn.LayerNorm(c.width, eps=c.norm_eps),
            Mlp(
                c.width,
                int(c.width * c.mlp_ratio),
                nn.GELU("tanh" if c.tanh_gelu else "none"),
                hidden_dropout=c.dropout,
                out_dropout=c.dropout,
            ),
            drop_path=c.drop_path * index / max(c.depth - 1, 1),
        )

    def initialise(self) -> None:
        """As the official code: Xavier uniform in the encoder, LeCun normal before and after it, a head of zeros."""
        nn.init.normal_(self.position, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _lecun_normal(module)
            elif isinstance(module, Attention):
                for matrix in module.qkv.weight.chunk(3):  # three maps, though they lie in one
                    nn.init.xavier_uniform_(matrix)
                nn.init.zeros_(module.qkv.bias)
                nn.init.xavier_uniform_(module.out.weight)
                nn.init.zeros_(module.out.bias)
            elif isinstance(module, Mlp):
                for linear in (module.fc1, module.fc2):
                    nn.init.xavier_uniform_(linear.weight)
                    nn.init.normal_(linear.bias, std=1e-6)
        if self.pre_logits is not None:
            _lecun_normal(self.pre_logits)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def tokens(self, images: Tensor) -> Tensor:
        """The sequence that enters the encoder, (B, T, D), class token first (equation 1 of the paper)."""
        check_images(images, self.config.in_channels, self.config.image_hw)
        x = self.patch_embed(self.stem(images)).flatten(2).transpose(1, 2)  # (B, D, h, w) → (B, h·w, D)
        if self.prefix:
            x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        return self.dropout(x + self.position)

    def features(self, images: Tensor) -> Tensor:
        """The last hidden states, (B, T, D), normed unless the norm comes after pooling."""
        x = self.tokens(images)
        for block in self.blocks:
            x = block(x)
        return x if self.config.pool == "mean_norm" else self.norm(x)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The last hidden states of the patches, normed, where they stood: one map, (B, D, H / stride, W / stride)."""
        x = self.features(images)
        patches = (self.norm(x) if self.config.pool == "mean_norm" else x)[:, self.prefix :]
        return [patches.transpose(1, 2).unflatten(2, self.config.grid)]

    def pool(self, x: Tensor) -> Tensor:
        """One vector per picture, (B, T, D) → (B, D)."""
        if self.config.pool == "token":
            return x[:, 0]
        x = x[:, self.prefix :].mean(dim=1)
        return self.norm(x) if self.config.pool == "mean_norm" else x

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(self.features(images))
        if self.pre_logits is not None:
            x = torch.tanh(self.pre_logits(x))
        return self.head(x)

    def attention_weights(self, images: Tensor) -> Iterator[Tensor]:
        """The attention weights of every block, first to last, each (B, heads, T, T)."""
        x = self.tokens(images)
        for module in self.blocks:
            block: Any = module
            yield block.attention.weights(block.norm1(x))
            x = block(x)

    def over_patches(self, weights: Tensor) -> Tensor:
        """How much of each patch comes to the pooled output by weights (B, heads, T, T), as (B, heads, h, w)."""
        rows = weights[:, :, 0] if self.config.pool == "token" else weights[:, :, self.prefix :].mean(2)
        return rows[..., self.prefix :].reshape(*rows.shape[:2], *self.config.grid)

    def attention_maps(self, images: Tensor) -> Tensor:
        """How much the pooled output looks at each patch in the last block, (B, heads, h, w)."""
        *_, last = self.attention_weights(images)
        return self.over_patches(last)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        blocks = [(f"blocks.{i}.",) for i in range(self.config.depth)]
        return [("stem.", "patch_embed.", "class_token", "position"), *blocks, ("norm.", "pre_logits."), ("head.",)]

    def fit_state(self, state: dict[str, Tensor], saved: ViTConfig) -> dict[str, Tensor]:
        """Weights trained at another picture size, their position table stretched to this model's grid."""
        table = resize_position_grid(state["position"], saved.grid, self.config.grid, int(saved.class_token))
        return state | {"position": table}


def _lecun_normal(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _variants() -> dict[str, ViTConfig]:
    patches_only: dict[str, Any] = dict(class_token=False, pool="mean")  # learns sooner from few pictures
    sizes: dict[str, Any] = {
        "tiny": dict(width=192, depth=12, heads=3),
        "small": dict(width=384, depth=12, heads=6),
        "base": dict(width=768, depth=12, heads=12),
        "large": dict(width=1024, depth=24, heads=16),
        "huge": dict(width=1280, depth=32, heads=16),
    }
    stems: dict[str, Any] = {
        "tiny_r_s16_p8": dict(patch=8, stem_stages=()),
        "small_r26_s32": dict(patch=1, stem_stages=(2, 2, 2, 2)),
        "base_r26_s32": dict(patch=1, stem_stages=(2, 2, 2, 2)),
        "base_r50_s16": dict(patch=1, stem_stages=(3, 4, 9)),
        "large_r50_s32": dict(patch=1, stem_stages=(3, 4, 6, 3)),
    }
    variants = {
        "vit_nano": ViTConfig(
            width=64, depth=4, heads=4, patch=4, image_size=16, in_channels=1, num_classes=10, **patches_only
        ),
        "vit_micro": ViTConfig(
            width=128, depth=4, heads=4, patch=7, image_size=28, in_channels=1, num_classes=10, **patches_only
        ),
        "vit_mini": ViTConfig(width=128, depth=6, heads=4, patch=4, image_size=32, num_classes=10, **patches_only),
    }
    for size, shape in sizes.items():
        for patch, images in ((8, (224, 384)), (14, (224,)), (16, (224, 384)), (32, (224, 384))):
            for image in images:
                variants[f"vit_{size}_patch{patch}_{image}"] = ViTConfig(**shape, patch=patch, image_size=image)
    for name, stem in stems.items():
        for image in (224, 384):
            variants[f"vit_{name}_{image}"] = ViTConfig(**sizes[name.split("_")[0]], **stem, image_size=image)
    return variants


VARIANTS = _variants()
# Google's checkpoints were trained on whole pictures stretched to a square, in [-1, 1].
STRETCHED = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0, "resize": "stretch"}
LANDMARK = Landmark(
    model=ViT,
    variants=VARIANTS,
    names=NAMES,
    infer_config=infer_config,
    config_json=CONFIG_JSON,
    preprocess=dict.fromkeys(("google", "hf", "hf4"), STRETCHED),
)
