"""CLIP: pictures and sentences in one space (Radford et al. 2021, arXiv:2103.00020).

Two towers that share nothing: one reads a picture, one a sentence, and each ends in a vector of length one. What
belongs together lies close. Legend: B pictures, N sentences, T tokens, D width of the shared space.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.image_text.clip_names import CONFIG_JSON, NAMES, NOT_WEIGHTS, infer_config
from orchard.models.image_text.clip_resnet import STRIDE, ResNetTower
from orchard.models.image_text.clip_towers import PatchTower, TextTower
from orchard.nn.checks import check_images
from orchard.nn.position import resize_position_grid

START_SCALE = math.log(1 / 0.07)  # of the logits, before the exponential


@dataclass(frozen=True)
class CLIPConfig:
    width: int  # D, of the space that both towers end in
    patch: int | None  # side of a patch in pixels; None: the picture tower is a ResNet
    vision_width: int  # of the tokens; of a ResNet, channels of the stem
    vision_depth: int | tuple[int, ...]  # blocks; of a ResNet, blocks in each of its four stages
    text_width: int
    text_depth: int
    text_heads: int
    vision_heads: int | None = None  # of a transformer; the ResNet's follow from its width
    vocabulary: int = 49408
    context: int = 77  # the longest sentence in tokens, start and end among them
    image_size: int | tuple[int, int] = 224  # one side, or height and width
    in_channels: int = 3

    def __post_init__(self) -> None:
        resnet = self.patch is None
        if resnet != isinstance(self.vision_depth, tuple) or resnet != (self.vision_heads is None):
            raise ValueError(
                "a picture tower of patches has patch, vision_heads and one number as vision_depth; "
                "a ResNet has neither patch nor vision_heads, and four numbers as vision_depth"
            )
        if isinstance(self.vision_depth, tuple) and len(self.vision_depth) != 4:
            raise ValueError(f"a ResNet has four stages, got {len(self.vision_depth)} depths")
        if resnet and self.vision_width % 2:
            raise ValueError(f"a ResNet's stem begins at half of vision_width, which is odd: {self.vision_width}")
        for width, heads in ((self.text_width, self.text_heads), (self.vision_width, self.vision_heads or 1)):
            if width % heads:
                raise ValueError(f"a width of {width} does not divide into {heads} heads")
        if self.image_hw[0] % self.stride or self.image_hw[1] % self.stride:
            h, w = self.image_hw
            raise ValueError(f"a picture of {h}x{w} does not divide into cells of {self.stride} pixels")

    @property
    def image_hw(self) -> tuple[int, int]:
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def stride(self) -> int:
        """Pixels a side of one patch, or of one cell of the ResNet's last map."""
        return self.patch or STRIDE

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches or cells."""
        return self.image_hw[0] // self.stride, self.image_hw[1] // self.stride


@dataclass(frozen=True)
class CLIPOutput:
    image_features: Tensor  # (B, D), of length one
    text_features: Tensor  # (N, D), of length one
    logits_per_image: Tensor  # (B, N): their cosines times exp(logit_scale)


class CLIP(nn.Module):
    """Pictures (B, C, H, W), normalised, and token ids (N, T), T at most `context`, to a `CLIPOutput`."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.config = c = config
        cells = c.grid[0] * c.grid[1]
        self.vision: PatchTower | ResNetTower
        if isinstance(c.vision_depth, tuple):
            self.vision = ResNetTower(c.in_channels, cells, c.vision_width, c.vision_depth, c.width)
        else:
            self.vision = PatchTower(
                c.in_channels, cells, c.stride, c.vision_width, c.vision_depth, c.vision_heads or 0, c.width
            )
        self.text = TextTower(c.vocabulary, c.context, c.text_width, c.text_depth, c.text_heads, c.width)
        self.logit_scale = nn.Parameter(torch.tensor(START_SCALE))

    def image_features(self, images: Tensor) -> Tensor:
        """(B, D), of length one."""
        check_images(images, self.config.in_channels, self.config.image_hw)
        return F.normalize(self.vision(images), dim=1)

    def text_features(self, tokens: Tensor) -> Tensor:
        """(N, D), of length one."""
        check_sentences(tokens, self.config.context, self.config.vocabulary)
        return F.normalize(self.text(tokens), dim=1)

    def forward(self, images: Tensor, tokens: Tensor) -> CLIPOutput:
        images, texts = self.image_features(images), self.text_features(tokens)
        return CLIPOutput(images, texts, self.logit_scale.exp() * images @ texts.T)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output; the towers end in the same group."""
        towers = [
            [tuple(f"{name}.{prefix}" for prefix in group) for group in tower.layer_groups()]
            for name, tower in (("vision", self.vision), ("text", self.text))
        ]
        deeper, other = sorted(towers, key=len, reverse=True)
        start = len(deeper) - len(other)
        groups = deeper[:start] + [mine + theirs for mine, theirs in zip(deeper[start:], other, strict=True)]
        return [*groups[:-1], (*groups[-1], "logit_scale")]

    def fit_state(self, state: dict[str, Tensor], saved: CLIPConfig) -> dict[str, Tensor]:
        """Weights trained at another picture size, their position table stretched to this model's grid."""
        name = "vision.pool.position" if self.config.patch is None else "vision.position"
        table = resize_position_grid(state[name][None], saved.grid, self.config.grid, prefix=1)
        return state | {name: table[0]}


def check_sentences(tokens: Tensor, context: int, vocabulary: int) -> None:
    """Raise ValueError unless `tokens` is (N, T) int64, T up to `context`, of ids below `vocabulary`.

    The ids themselves are read on the CPU only: elsewhere the look would hold up the device.
    """
    if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= context or tokens.dtype != torch.int64:
        found = f"{tuple(tokens.shape)} {str(tokens.dtype).removeprefix('torch.')}"
        raise ValueError(f"expected token ids of shape (N, T) int64 with T from 1 to {context}, got {found}")
    if tokens.device.type == "cpu" and not torch.compiler.is_compiling() and tokens.numel():
        least, most = tokens.aminmax()
        if least < 0 or most >= vocabulary:
            raise ValueError(f"expected token ids from 0 to {vocabulary - 1}, got {int(least)} to {int(most)}")


def example(config: CLIPConfig, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Random pictures, and random sentences of the full context whose end token stands somewhere behind the first."""
    end = config.vocabulary - 1
    images = torch.randn(count, config.in_channels, *config.image_hw, generator=generator)
    tokens = torch.randint(end, (count, config.context), generator=generator)
    ends = torch.randint(1, config.context, (count, 1), generator=generator)
    places = torch.arange(config.context)
    tokens = tokens.masked_fill(places == ends, end).masked_fill(places > ends, 0)
    return {"images": images, "tokens": tokens}


def _variants() -> dict[str, CLIPConfig]:
    def text(width: int) -> dict[str, int]:
        return dict(text_width=width, text_depth=12, text_heads=width // 64)

    def resnet(width: int, stem: int, depths: tuple[int, ...], image_size: int, words: int) -> CLIPConfig:
        return CLIPConfig(width, None, stem, depths, image_size=image_size, **text(words))

    def patches(width: int, patch: int, tokens: int, depth: int, image_size: int, words: int) -> CLIPConfig:
        return CLIPConfig(width, patch, tokens, depth, vision_heads=tokens // 64, image_size=image_size, **text(words))

    nano: dict[str, Any] = dict(
        text_width=64, text_depth=2, text_heads=4, vocabulary=512, context=32, image_size=28, in_channels=1
    )
    tiny: dict[str, Any] = dict(text_width=192, text_depth=4, text_heads=3, vocabulary=4096, context=32, image_size=64)
    return {
        "clip_nano": CLIPConfig(64, 7, 64, 4, vision_heads=4, **nano),
        "clip_tiny": CLIPConfig(192, 8, 192, 6, vision_heads=3, **tiny),
        "clip_rn50": resnet(1024, 64, (3, 4, 6, 3), 224, 512),
        "clip_rn101": resnet(512, 64, (3, 4, 23, 3), 224, 512),
        "clip_rn50x4": resnet(640, 80, (4, 6, 10, 6), 288, 640),
        "clip_rn50x16": resnet(768, 96, (6, 8, 18, 8), 384, 768),
        "clip_rn50x64": resnet(1024, 128, (3, 15, 36, 10), 448, 1024),
        "clip_vit_base_patch32": patches(512, 32, 768, 12, 224, 512),
        "clip_vit_base_patch16": patches(512, 16, 768, 12, 224, 512),
        "clip_vit_large_patch14": patches(768, 14, 1024, 24, 224, 768),
        "clip_vit_large_patch14_336": patches(768, 14, 1024, 24, 336, 768),
    }


VARIANTS = _variants()
PREPROCESS = {
    "mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711), "crop": 1.0,
    "interpolation": "bicubic",
}  # fmt: skip
LANDMARK = Landmark(
    model=CLIP,
    variants=VARIANTS,
    names=NAMES,
    infer_config=infer_config,
    not_weights=NOT_WEIGHTS,
    config_json=CONFIG_JSON,
    preprocess={"": PREPROCESS},
    example=example,
)
