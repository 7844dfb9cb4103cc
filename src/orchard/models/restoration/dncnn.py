"""DnCNN: a network that finds the noise of an image (Zhang, Zuo, Chen, Meng, Zhang 2016, arXiv:1608.03981).

Convolutions of 3x3 at full resolution, batch norm between them (section 3.1). What they give is taken from the image:
residual learning (section 3.2). FDnCNN is the same without the subtraction; it is told the strength of the noise by a
map beside the image, as FFDNet is (Zhang et al. 2017, arXiv:1710.04026). Legend: B images, C channels, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.restoration.contract import RestorationNetwork, example_at
from orchard.nn.checks import check_images

STANDARD = 40  # pixels a side of the training patches (section 4.1)
TAIL = 0.1  # of He's standard deviation in the last convolution, so that the first answer is nearly the image
SAOYAN = ("saoyan", 1e-5, 0.1)  # the epsilon and the momentum of its batch norm


@dataclass(frozen=True)
class DnCNNConfig:
    in_channels: int
    dilations: tuple[int, ...]  # of each convolution; their number is the depth
    width: int = 64
    norm: Literal["batch", "none"] = "batch"  # behind all convolutions but the first and the last
    eps: float = 1e-4
    momentum: float = 0.9  # of the norm's running averages: the share of the newest batch
    bias: bool = True
    noise_map: bool = False

    def __post_init__(self) -> None:
        if len(self.dilations) < 2:
            raise ValueError(f"dilations are {self.dilations}; expected those of two convolutions or more")


class Layer(nn.Module):
    """Convolution, norm where there is one, ReLU."""

    def __init__(self, c: DnCNNConfig, dilation: int):
        super().__init__()
        self.conv = nn.Conv2d(c.width, c.width, 3, padding=dilation, dilation=dilation, bias=c.bias)
        self.norm = nn.BatchNorm2d(c.width, c.eps, c.momentum) if c.norm == "batch" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(self.conv(x)).relu()
        return result


class DnCNN(RestorationNetwork):
    """Noisy images (B, C, H, W) in [0, 1] to clean ones; with `noise_map` (B, C + 1, H, W), the map being the last."""

    def __init__(self, config: DnCNNConfig):
        super().__init__()
        self.config = c = config
        first, *middle, last = c.dilations
        inputs = c.in_channels + c.noise_map
        self.head = nn.Conv2d(inputs, c.width, 3, padding=first, dilation=first, bias=c.bias)
        self.layers = nn.Sequential(*(Layer(c, dilation) for dilation in middle))
        self.tail = nn.Conv2d(c.width, c.in_channels, 3, padding=last, dilation=last, bias=c.bias)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.tail.weight *= TAIL

    @property
    def channels(self) -> int:
        return self.config.in_channels

    @property
    def noise_map(self) -> bool:
        return self.config.noise_map

    @property
    def receptive_radius(self) -> int:
        return sum(self.config.dilations)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.channels + self.noise_map)
        found: Tensor = self.tail(self.layers(self.head(images).relu()))
        return found if self.noise_map else images - found

    def restore(self, images: Tensor, sigma: Tensor | None = None) -> Tensor:
        if not self.noise_map:
            clean: Tensor = self(images)
            return clean
        if sigma is None:
            raise ValueError("expected sigma, the standard deviation of the noise, which this network must be told")
        strength = sigma.to(images).view(-1, 1, 1, 1).expand(len(images), 1, *images.shape[2:])
        mapped: Tensor = self(torch.cat([images, strength], 1))
        return mapped

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output."""
        return [("head.",), *((f"layers.{n}.",) for n in range(len(self.layers))), ("tail.",)]


def example(config: DnCNNConfig, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    return {"images": example_at(config.in_channels + config.noise_map, STANDARD, STANDARD, count, generator)}


def flat_names(config: DnCNNConfig, network: str) -> list[tuple[str, str]]:
    """Convolutions, norms and ReLUs counted in one list, as official code has them."""
    apart = 3 if config.norm == "batch" else 2
    rows = [("head.{}", f"{network}.0.{{}}")]
    for n in range(len(config.dilations) - 2):
        rows += [(f"layers.{n}.conv.{{}}", f"{network}.{2 + apart * n}.{{}}")]
        rows += [(f"layers.{n}.norm.{{}}", f"{network}.{3 + apart * n}.{{}}")]
    return [*rows, ("tail.{}", f"{network}.{2 + apart * (len(config.dilations) - 2)}.{{}}")]


def kair_names(config: DnCNNConfig) -> list[tuple[str, str]]:
    """The names of cszn/KAIR."""
    return flat_names(config, "model")


def saoyan_names(config: DnCNNConfig) -> list[tuple[str, str]]:
    """The names of SaoYan/DnCNN-PyTorch."""
    return flat_names(config, "dncnn")


def infer_config(config: Any, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """Released files of KAIR have the norms merged into the convolutions; SaoYan's have norms of torch's defaults."""
    found: dict[str, Any] = {"bias": lookup("head.bias") is not None}
    found["norm"] = "none" if lookup("layers.0.norm.weight") is None else "batch"
    name, eps, momentum = SAOYAN
    return found | ({"eps": eps, "momentum": momentum} if source == name else {})


GREY, COLOUR = 1, 3
VARIANTS = {
    "dncnn_nano": DnCNNConfig(GREY, (1,) * 7, width=32),
    "dncnn_s": DnCNNConfig(GREY, (1,) * 17),
    "dncnn_b": DnCNNConfig(GREY, (1,) * 20),
    "cdncnn_b": DnCNNConfig(COLOUR, (1,) * 20, norm="none"),
    "fdncnn": DnCNNConfig(GREY, (1,) * 20, norm="none", noise_map=True),
    "fdncnn_color": DnCNNConfig(COLOUR, (1,) * 20, norm="none", noise_map=True),
}
LANDMARK = Landmark(
    model=DnCNN,
    variants=VARIANTS,
    names={"kair": kair_names, "saoyan": saoyan_names},
    infer_config=infer_config,
    example=example,
)
