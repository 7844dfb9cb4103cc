"""TTSR: super-resolution with textures from a reference picture (Yang et al. 2020, arXiv:2006.04139).

A few layers of VGG-19, which learn on, describe the enlarged picture, the reference and the reference blurred alike
(section 3.1). Every position of the picture takes the most relevant textures of the reference (texture_search.py), and
a network of three resolutions, which tell each other what they found, adds them as far as they are relevant
(section 3.2). Values are RGB in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.restoration.contract import SuperResolver, example_at
from orchard.models.restoration.texture_search import search, transfer
from orchard.nn.checks import check_images
from orchard.nn.sub_pixel import ConvResidual, SubPixelConv
from orchard.nn.vgg_features import VggFeatures, layer_names

SCALE = 4
LEVELS = 3  # resolutions: that of the picture, twice and four times that
STANDARD, SMALL = 40, 12  # pixels a side of the training pictures (section 4.1), and for narrow networks


@dataclass(frozen=True)
class TTSRConfig:
    width: int = 64
    blocks: tuple[int, int, int, int] = (16, 16, 8, 4)  # before textures come in, and at one, two, three resolutions
    residual_scale: float = 1.0
    features: tuple[int, int, int] = (64, 128, 256)  # of the texture extractor; the coarsest are compared


@dataclass(frozen=True)
class Textures:
    """What a picture found in the reference: `soft` attention (B, 1, h, w), and `levels`, textures for the picture's
    resolution, twice and four times that."""

    soft: Tensor
    levels: tuple[Tensor, ...]


def conv(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2)


def up(x: Tensor, times: int) -> Tensor:
    return F.interpolate(x, scale_factor=times, mode="bicubic") if times > 1 else x


def refined(c: TTSRConfig, blocks: int) -> nn.Sequential:
    residuals = (ConvResidual(c.width, 3, scale=c.residual_scale) for _ in range(blocks))
    return nn.Sequential(*residuals, conv(c.width, c.width))


class Exchange(nn.Module):
    """Cross-scale feature integration: every resolution is told of all others (section 3.2, figure 4).

    A 1x1 convolution and bicubic enlargement lead upwards, 3x3 convolutions of stride 2 downwards. (The official code
    enlarges first, which is the same and takes longer.)
    """

    def __init__(self, width: int, levels: int):
        super().__init__()
        self.pairs = [(a, b) for b in range(levels) for a in range(levels) if a != b]
        self.paths = nn.ModuleDict()
        for a, b in self.pairs:
            down = [conv(width, width, stride=2) for _ in range(a - b)]
            self.paths[f"{a}{b}"] = nn.Sequential(*(down or [conv(width, width, kernel=1)]))
        self.merge = nn.ModuleList(conv(levels * width, width) for _ in range(levels))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        result = []
        for b, merge in enumerate(self.merge):
            others = [self._led(maps[a], a, b) for a, to in self.pairs if to == b]
            result.append(merge(torch.cat([maps[b], *others], dim=1)).relu())
        return result

    def _led(self, x: Tensor, a: int, b: int) -> Tensor:
        path = cast(nn.Sequential, self.paths[f"{a}{b}"])
        if a < b:
            return up(path(x), 2 ** (b - a)).relu()
        for layer in path:
            x = layer(x).relu()
        return x


class Synthesis(nn.Module):
    """The main network: RGB (B, 3, h, w) and the textures that it found to (B, 3, 4h, 4w)."""

    def __init__(self, c: TTSRConfig):
        super().__init__()
        first, *rest = c.blocks
        self.head, self.shallow = conv(3, c.width), refined(c, first)
        self.enlarge = nn.ModuleList(SubPixelConv(c.width, 2, bias=True) for _ in range(LEVELS - 1))
        self.fuse = nn.ModuleList(conv(c.width + features, c.width) for features in reversed(c.features))
        self.exchange = nn.ModuleList(Exchange(c.width, levels) for levels in range(2, LEVELS + 1))
        self.refine = nn.ModuleList(
            nn.ModuleList(refined(c, blocks) for _ in range(level + 1)) for level, blocks in enumerate(rest)
        )
        self.lead = nn.ModuleList(conv(c.width, c.width, kernel=1) for _ in range(LEVELS - 1))
        self.merge = conv(LEVELS * c.width, c.width)
        self.tail = nn.Sequential(conv(c.width, c.width // 2), conv(c.width // 2, 3, kernel=1))

    def forward(self, images: Tensor, textures: Textures) -> Tensor:
        x = self.head(images).relu()
        maps: list[Tensor] = [x + self.shallow(x)]
        for level, (fuse, refine) in enumerate(zip(self.fuse, self.refine, strict=True)):
            if level:
                maps.append(self.enlarge[level - 1](maps[-1]).relu())
            finest, soft = maps[-1], up(textures.soft, 2**level)
            maps[-1] = finest + soft * fuse(torch.cat([finest, textures.levels[level]], dim=1))
            inner = self.exchange[level - 1](maps) if level else maps
            maps = [x + blocks(y) for x, y, blocks in zip(maps, inner, cast(nn.ModuleList, refine), strict=True)]
        *coarse, finest = maps
        led = [up(lead(x), SCALE // 2**n).relu() for n, (x, lead) in enumerate(zip(coarse, self.lead, strict=True))]
        return self.tail(self.merge(torch.cat([finest, *led], dim=1)).relu())


class TTSR(SuperResolver):
    """RGB (B, 3, h, w) and a reference (B, 3, H, W), each in [-1, 1], to (B, 3, 4h, 4w).

    The reference may be of any size from 4 pixels a side on; its lower and right edge are cut to multiples of 4.
    """

    value_range = (-1.0, 1.0)
    takes_reference = True

    def __init__(self, config: TTSRConfig):
        super().__init__()
        self.config = config
        self.extractor = VggFeatures(config.features)
        self.synthesis = Synthesis(config)

    @property
    def scales(self) -> tuple[int, ...]:
        return (SCALE,)

    @property
    def receptive_radius(self) -> int:
        """All convolutions at low resolution, and 24 pixels for bicubic enlargements, features and the finer ones."""
        return 2 * sum(self.config.blocks) + 24

    def upscale(self, images: Tensor, scale: int, reference: Tensor | None = None) -> Tensor:
        """Raises ValueError for another scale and without a reference."""
        if scale != SCALE or reference is None:
            raise ValueError(f"expected a scale of {SCALE} and a reference, got {scale}, {type(reference).__name__}")
        found: Tensor = self(images, reference)
        return found

    def forward(
        self, images: Tensor, reference: Tensor, enlarged: Tensor | None = None, blurred: Tensor | None = None
    ) -> Tensor:
        """`enlarged` is `images`, and `blurred` the reference made small and large again, by Pillow; without them they
        are made here, but for rounding alike."""
        return self.synthesise(images, self.textures(images, reference, enlarged, blurred))

    def synthesise(self, images: Tensor, textures: Textures) -> Tensor:
        return self.synthesis(images, textures).clamp(-1, 1)

    def textures(
        self, images: Tensor, reference: Tensor, enlarged: Tensor | None = None, blurred: Tensor | None = None
    ) -> Textures:
        """What of the reference is relevant where. Computed in float32: in less, many positions would be alike."""
        check_images(images, 3)
        check_images(reference, 3, least=SCALE)
        with torch.autocast("cpu" if images.is_meta else images.device.type, enabled=False):
            images, height, width = images.float(), *(side // SCALE * SCALE for side in reference.shape[2:])
            reference = reference.float()[:, :, :height, :width]
            if enlarged is None:
                enlarged = resampled(images, images.shape[2] * SCALE, images.shape[3] * SCALE)
            if blurred is None:
                blurred = resampled(resampled(reference, height // SCALE, width // SCALE), height, width)
            queries, keys = self.describe(enlarged)[-1], self.describe(blurred)[-1]
            soft, index = search(queries, keys)
            size, found = (images.shape[2], images.shape[3]), self.describe(reference)
            levels = (transfer(one, index, size, 2**n) for n, one in enumerate(reversed(found)))
            return Textures(soft.view(-1, 1, *size), tuple(levels))

    def describe(self, images: Tensor) -> list[Tensor]:
        """The extractor's features of images in [-1, 1], the finest first."""
        found: list[Tensor] = self.extractor((images + 1) / 2)
        return found

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output."""
        inner = ("enlarge", "fuse", "exchange", "refine")
        return [
            ("extractor.",),
            ("synthesis.head.", "synthesis.shallow."),
            tuple(f"synthesis.{name}." for name in inner),
            ("synthesis.lead.", "synthesis.merge.", "synthesis.tail."),
        ]


@torch.no_grad()
def resampled(images: Tensor, height: int, width: int) -> Tensor:
    """Images in [-1, 1] at another size by Pillow's bicubic, which rounds to 8 bits after each of its two passes."""
    for size in ((images.shape[2], width), (height, width)):
        values = F.interpolate(images, size, mode="bicubic", antialias=True)
        images = ((values + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
    return images


def example(config: TTSRConfig, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    side = STANDARD if config.width >= 64 else SMALL
    images = example_at(3, side, side, count, generator).tanh()
    return {"images": images, "reference": example_at(3, side * SCALE, side * SCALE, count, generator).tanh()}


def official_names(config: TTSRConfig) -> list[tuple[str, str]]:
    """The names of researchmm/TTSR. Its digits count resolutions from 1: conv12 leads from the first to the second."""
    first, *rest = config.blocks
    rules = [("synthesis.head.{}", "MainNet.SFE.conv_head.{}"), *stack("synthesis.shallow", first, "MainNet.SFE.RBs",
             "MainNet.SFE.conv_tail")]  # fmt: skip
    for n, blocks in enumerate(rest):
        for m in range(n + 1):
            name = f"{n + 1}{m + 1}"
            rules += stack(f"synthesis.refine.{n}.{m}", blocks, f"MainNet.RB{name}", f"MainNet.conv{name}_tail")
        rules.append((f"synthesis.fuse.{n}.{{}}", f"MainNet.conv{n + 1}{n + 1}_head.{{}}"))
    for n, exchange in enumerate(("ex12", "ex123")):
        ours, theirs = f"synthesis.exchange.{n}", f"MainNet.{exchange}"
        rules += [(f"{ours}.paths.20.{k}.{{}}", f"{theirs}.conv31_{k + 1}.{{}}") for k in (0, 1)]
        pairs = ((a, b) for a in range(LEVELS) for b in range(LEVELS))
        rules += [(f"{ours}.paths.{a}{b}.0.{{}}", f"{theirs}.conv{a + 1}{b + 1}.{{}}") for a, b in pairs]
        rules += [(f"{ours}.merge.{m}.{{}}", f"{theirs}.conv_merge{m + 1}.{{}}") for m in range(LEVELS)]
        rules.append((f"synthesis.enlarge.{n}.conv.{{}}", f"MainNet.conv{n + 1}{n + 2}.{{}}"))
        rules.append((f"synthesis.lead.{n}.{{}}", f"MainNet.merge_tail.conv{n + 1}3.{{}}"))
        rules.append((f"synthesis.tail.{n}.{{}}", f"MainNet.merge_tail.conv_tail{n + 1}.{{}}"))
    extractor = [
        (f"extractor.stages.{stage}.{layer}.{{}}", f"LTE.slice{stage + (2 if layer else 1)}.{index}.{{}}")
        for stage, layer, index in layer_names((2, 2, 1))
    ]
    return [
        *rules,
        ("synthesis.merge.{}", "MainNet.merge_tail.conv_merge.{}"),
        *extractor,
        ("extractor.normalise.{}", "LTE.sub_mean.{}"),
    ]


def stack(ours: str, blocks: int, theirs: str, tail: str) -> list[tuple[str, str]]:
    """Residual blocks and the convolution after them, which official files name apart."""
    inside = ((f"{ours}.{n}.conv{k}.{{}}", f"{theirs}.{n}.conv{k}.{{}}") for n in range(blocks) for k in (1, 2))
    return [*inside, (f"{ours}.{blocks}.{{}}", f"{tail}.{{}}")]


VARIANTS: dict[str, Any] = {
    "ttsr": TTSRConfig(),
    "ttsr_rec": TTSRConfig(),
    "ttsr_nano": TTSRConfig(width=16, blocks=(2, 2, 1, 1), features=(8, 16, 32)),
}
LANDMARK = Landmark(
    model=TTSR, variants=VARIANTS, names={"official": official_names}, example=example,
    not_weights={"official": ("LTE_copy.*",)},
)  # fmt: skip
