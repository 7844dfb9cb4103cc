"""U-Net: convolutional networks for biomedical image segmentation (Ronneberger et al. 2015, arXiv:1505.04597).

A path down that sees more and more of the picture, a path up that says where it was: every map on the way down is laid
beside the map of its size on the way up. In the paper no convolution is padded, so that the answer is smaller than the
picture and owes nothing to its border; the padded form with batch norms is the one most code has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.nn.checks import check_images


@dataclass(frozen=True)
class UNetConfig:
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)  # channels of each level, the last at the bottom
    padded: bool = False  # convolutions keep the size, with batch norms in place of biases
    up: str = "transposed"  # to the level above: a "transposed" 2x2 convolution, or "bilinear" and half the channels
    dropout: float = 0.5  # at the end of the path down: of its last two levels
    image_size: int | tuple[int, int] = 572
    in_channels: int = 1
    num_classes: int = 2

    def __post_init__(self) -> None:
        if self.up not in ("transposed", "bilinear"):
            raise ValueError(f"up is one of transposed, bilinear, got {self.up!r}")
        if len(self.widths) < 2:
            raise ValueError(f"widths names two levels or more, got {len(self.widths)}")

    @property
    def stride(self) -> int:
        """Pixels a side that one cell at the bottom stands for."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def margin(self) -> int:
        """Pixels on each side of which an unpadded network says nothing: two a convolution, at its level's scale."""
        return 0 if self.padded else 6 * self.stride - 4


def convolutions(config: UNetConfig, inputs: int, inner: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions with ReLU: what stands on each level, on both paths."""
    layers: list[nn.Module] = []
    for before, after in ((inputs, inner), (inner, outputs)):
        layers.append(nn.Conv2d(before, after, 3, padding=int(config.padded), bias=not config.padded))
        if config.padded:
            layers.append(nn.BatchNorm2d(after))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Up(nn.Module):
    """One step up: a map (B, inputs, h, w) is doubled and laid beside the one that was kept, (B, skip, H, W), to
    (B, outputs, ...)."""

    def __init__(self, config: UNetConfig, inputs: int, skip: int, outputs: int):
        super().__init__()
        self.padded = config.padded
        if config.up == "transposed":
            self.up: nn.Module = nn.ConvTranspose2d(inputs, skip, 2, stride=2)
            self.convs = convolutions(config, 2 * skip, skip, outputs)
        else:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.convs = convolutions(config, inputs + skip, (inputs + skip) // 2, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)
        down, across = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        if self.padded:  # of an odd number of rows the last was lost on the way down
            x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        else:
            skip = skip[:, :, down // 2 : down // 2 + x.shape[2], across // 2 : across // 2 + x.shape[3]]
        joined: Tensor = self.convs(torch.cat([skip, x], 1))
        return joined


class UNet(nn.Module):
    """Pictures (B, C, H, W), normalised, to logits (B, num_classes, H, W); without padding, of the middle: 572 to 388
    (figure 1)."""

    head_name = "head"

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = c = config
        widths = list(c.widths)
        if c.up == "bilinear":  # nothing else would halve the channels on the way up
            widths[-1] //= 2
        self.down = nn.ModuleList(
            convolutions(c, inputs, width, width)
            for inputs, width in zip((c.in_channels, *widths[:-1]), widths, strict=True)
        )
        self.up = nn.ModuleList()
        inputs = widths[-1]
        for level in reversed(range(len(widths) - 1)):
            outputs = widths[level] // 2 if c.up == "bilinear" and level else widths[level]
            self.up.append(Up(c, inputs, widths[level], outputs))
            inputs = outputs
        self.dropout = nn.Dropout(c.dropout)
        self.head = nn.Conv2d(inputs, c.num_classes, 1)
        for module in self.modules():
            # Variance 2 / fan-in (section 3); where there are no numbers it would only take time
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.config.in_channels, least=self.config.stride)
        if not self.config.padded:
            self._check_size(images)
        maps = []
        x = images
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            if level >= len(self.down) - 2:
                x = self.dropout(x)
            maps.append(x)
        maps.pop()
        for step in self.up:
            x = step(x, maps.pop())
        logits: Tensor = self.head(x)
        return logits

    def segment(self, images: Tensor) -> Tensor:
        """The logits of every pixel. What an unpadded network would see beyond the border is mirrored (section 2)."""
        if self.config.padded:
            return self(images)  # type: ignore[no-any-return]
        margin, stride = self.config.margin, self.config.stride
        height, width = images.shape[2:]
        # Inside an unpadded network every level has to be even: its answer is a multiple of the stride and 4 more.
        bottom, right = (margin + (4 - side) % stride for side in (height, width))
        if max(bottom, right) >= min(height, width):
            least = margin + stride
            raise ValueError(
                f"expected pictures of at least {least} pixels a side to be mirrored, got {height}x{width}"
            )
        whole = F.pad(images, (margin, right, margin, bottom), mode="reflect")
        return self(whole)[:, :, :height, :width]  # type: ignore[no-any-return]

    def _check_size(self, images: Tensor) -> None:
        margin, stride = self.config.margin, self.config.stride
        for side in images.shape[2:]:
            if side <= 2 * margin or (side - 2 * margin - 4) % stride:
                least = 2 * margin + 4
                raise ValueError(
                    f"expected pictures of {least} pixels a side and multiples of {stride} more, as nothing is padded, "
                    f"got {tuple(images.shape)}"
                )

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        down = [(f"down.{level}.",) for level in range(len(self.down))]
        return [*down, *((f"up.{step}.",) for step in range(len(self.up))), ("head.",)]


VARIANTS = {
    "unet": UNetConfig(),
    "unet_same": UNetConfig(padded=True, dropout=0.0, in_channels=3),
    "unet_same_bilinear": UNetConfig(padded=True, dropout=0.0, up="bilinear", in_channels=3),
    "unet_nano": UNetConfig(
        (12, 24, 48, 96), padded=True, dropout=0.0, image_size=(64, 80), in_channels=3, num_classes=11
    ),
}


def milesial_names(config: UNetConfig) -> list[tuple[str, str]]:
    """milesial/Pytorch-UNet: a level's layers are counted without regard to what they are, as ours."""
    if not config.padded:
        return []  # it has no unpadded network
    last = len(config.widths) - 1
    rows = [("down.0.{}", "inc.double_conv.{}")]
    rows += [(f"down.{level}.{{}}", f"down{level}.maxpool_conv.1.double_conv.{{}}") for level in range(1, last + 1)]
    for step in range(last):
        rows.append((f"up.{step}.convs.{{}}", f"up{step + 1}.conv.double_conv.{{}}"))
        rows.append((f"up.{step}.up.{{}}", f"up{step + 1}.up.{{}}"))
    return [*rows, ("head.{}", "outc.conv.{}")]


NAMES: dict[str, Callable[[UNetConfig], list[tuple[str, str]]]] = {"milesial": milesial_names}
LANDMARK = Landmark(
    model=UNet,
    variants=VARIANTS,
    names=NAMES,
    not_weights={"milesial": ("mask_values",)},
    preprocess={"": {"mean": (0.0,), "std": (1.0,)}},
)
