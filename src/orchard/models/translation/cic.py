"""Colours for grey images, chosen among classes.

Zhang et al. 2016 (arXiv:1603.08511), section 2 and table of the supplement, as released in PyTorch. Legend: B images,
H x W pixels, Q = 313 classes of colour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark, Rule
from orchard.models.translation.contract import Direction, ImageTranslator
from orchard.nn.colour_bins import annealed_mean, colour_bins
from orchard.nn.lab import lab_to_rgb, rgb_to_lab

HALVINGS = 3
CENTRE, SCALE = 50.0, 100.0  # of lightness, as the network reads it
AB = 110.0  # what colours are over in official weights


@dataclass(frozen=True)
class CICConfig:
    image_size: int = 256
    widths: tuple[int, int, int, int, int] = (64, 128, 256, 512, 256)  # of blocks 1, 2, 3, 4 to 7, and 8
    temperature: float = 0.38  # of the softmax (section 2.3); official PyTorch weights have 1

    def __post_init__(self) -> None:
        if self.image_size % 2**HALVINGS:
            raise ValueError(f"image_size is {self.image_size}, expected a multiple of {2**HALVINGS}")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}, expected a number above 0")

    @property
    def in_channels(self) -> int:
        return 1  # lightness


@dataclass(frozen=True)
class Coloured:
    """logits: (B, Q, H / 4, W / 4) of the classes; ab: (B, 2, H, W), both axes of Lab over `AB`."""

    logits: Tensor
    ab: Tensor


class Block(nn.Module):
    """3x3 convolutions with ReLU, the last of `stride`, and a norm behind them."""

    def __init__(self, inputs: int, width: int, count: int, *, stride: int = 1, dilation: int = 1):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(
                width if n else inputs, width, 3, stride if n == count - 1 else 1, dilation, dilation
            )
            for n in range(count)
        )  # fmt: skip
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x).relu()
        result: Tensor = self.norm(x)
        return result


class CIC(ImageTranslator):
    """Lightness (B, 1, H, W) from 0 to 100, sides multiples of 8, to the colours of every place."""

    bins: Tensor

    def __init__(self, config: CICConfig):
        super().__init__()
        self.config = config
        first, second, third, middle, last = config.widths
        self.blocks = nn.ModuleList([
            Block(1, first, 2, stride=2),
            Block(first, second, 2, stride=2),
            Block(second, third, 3, stride=2),
            Block(third, middle, 3),
            Block(middle, middle, 3, dilation=2),
            Block(middle, middle, 3, dilation=2),
            Block(middle, middle, 3),
        ])  # fmt: skip
        self.up = nn.ConvTranspose2d(middle, last, 4, 2, 1)
        self.refine = nn.ModuleList(nn.Conv2d(last, last, 3, padding=1) for _ in range(2))
        self.register_buffer("bins", colour_bins() / AB)
        self.classify = nn.Conv2d(last, len(self.bins), 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module is not self.classify:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    @property
    def multiple(self) -> int:
        return int(2**HALVINGS)

    @property
    def directions(self) -> tuple[Direction, ...]:
        return ("AtoB",)

    def channels(self, side: str) -> int:
        return 1 if side == "A" else 3

    def classes(self, lightness: Tensor) -> Tensor:
        """The logits alone, (B, Q, H / 4, W / 4)."""
        self.check(lightness, 1)
        x = (lightness - CENTRE) / SCALE
        for block in self.blocks:
            x = block(x)
        x = self.up(x).relu()
        for conv in self.refine:
            x = conv(x).relu()
        logits: Tensor = self.classify(x)
        return logits

    def forward(self, lightness: Tensor) -> Coloured:
        logits = self.classes(lightness)
        ab = annealed_mean(logits.float(), self.bins, self.config.temperature)
        return Coloured(logits, F.interpolate(ab, scale_factor=4, mode="bilinear"))

    def colours(self, lightness: Tensor) -> Tensor:
        """Both axes of Lab, (B, 2, H, W)."""
        ab: Tensor = self(lightness).ab
        return ab.float() * AB

    def translate(self, images: Tensor, direction: Direction = "AtoB") -> Tensor:
        """Grey images in [-1, 1] in colours, of the same lightness as far as a screen has them so."""
        if direction not in self.directions:
            raise ValueError(f"expected the direction {self.directions[0]}, got {direction}")
        lightness = rgb_to_lab(((images + 1) / 2).expand(-1, 3, -1, -1))[:, :1]
        return lab_to_rgb(torch.cat([lightness, self.colours(lightness)], 1)) * 2 - 1

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters, from the pixels to the classes."""
        return [*((f"blocks.{n}.",) for n in range(len(self.blocks))), ("up.", "refine."), ("classify.",)]


def example(config: Any, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Arguments of `forward`."""
    shape = (count, 1, config.image_size, config.image_size)
    return {"lightness": 100 * torch.rand(shape, generator=generator)}


def richzhang_names(config: Any) -> list[Any]:
    """The names of richzhang/colorization (eccv16)."""
    rows: list[Any] = []
    for n, count in enumerate((2, 2, 3, 3, 3, 3, 3)):
        rows += [(f"blocks.{n}.convs.{k}.{{}}", f"model{n + 1}.{2 * k}.{{}}") for k in range(count)]
        rows.append((f"blocks.{n}.norm.{{}}", f"model{n + 1}.{2 * count}.{{}}"))
    rows += [("up.{}", "model8.0.{}"), ("refine.0.{}", "model8.2.{}"), ("refine.1.{}", "model8.4.{}")]
    as_kernel = Rule("bins", ("model_out.weight",), lambda w: w[:, :, 0, 0].T.contiguous(), split)
    return [*rows, ("classify.{}", "model8.6.{}"), as_kernel]


def split(bins: Tensor) -> tuple[Tensor]:
    """The colours of the bins as the kernel of a 1x1 convolution."""
    return (bins.T.contiguous()[:, :, None, None],)


def infer_config(config: Any, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """Widths, read off the convolutions; the temperature is in those weights."""
    names = [*(f"blocks.{n}.convs.0.weight" for n in range(4)), "refine.0.weight"]
    found = [lookup(name) for name in names]
    widths = {"widths": tuple(len(w) for w in found if w is not None)} if all(w is not None for w in found) else {}
    return {"temperature": 1.0, **widths}


VARIANTS = {
    "cic": CICConfig(),
    "cic_nano": CICConfig(64, (16, 32, 48, 64, 48)),
}
LANDMARK = Landmark(
    model=CIC,
    variants=VARIANTS,
    names={"richzhang": richzhang_names},
    infer_config=infer_config,
    preprocess={"": {"mean": (0.5,), "std": (0.5,), "crop": 1.0, "interpolation": "bicubic"}},
    example=example,
)
