"""The U-Net that removes noise from images (Ho et al. 2020, arXiv:2006.11239, appendix B).

Levels of residual blocks going down, each at half the resolution of the one before, and the same levels going up.
Every feature map on the way down is kept and joined to the map of its size on the way up. What differs between papers
(how the embedding enters a block, the norm, the attention, the convolution that halves) is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.nn.autoencoder import SpatialAttention, Upsample


@dataclass(frozen=True)
class UNetConfig:
    """What every denoising U-Net has to say about its shape."""

    image_size: int
    multipliers: tuple[int, ...]  # channels of each level over `width`; a level has half the resolution of the last
    attention_at: tuple[int, ...] = (16,)  # resolutions, counted from `image_size`, whose blocks have attention
    in_channels: int = 3
    width: int = 128
    blocks: int = 2  # residual blocks of a level going down; going up it has one more
    dropout: float = 0.0
    groups: int = 32  # of every norm

    def __post_init__(self) -> None:
        for width in (self.width, *self.widths):
            if width % self.groups:
                raise ValueError(f"a width of {width} does not divide into {self.groups} groups")
        if self.image_size % self.stride:
            raise ValueError(f"an image of {self.image_size} pixels cannot be halved {len(self.multipliers) - 1} times")

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self.width * times for times in self.multipliers)

    @property
    def attention(self) -> tuple[bool, ...]:
        """Whether each level has attention; the size of the image that comes in has no say."""
        return tuple(self.image_size // 2**n in self.attention_at for n in range(len(self.multipliers)))

    @property
    def stride(self) -> int:
        """What height and width have to be multiples of."""
        return 2 ** (len(self.multipliers) - 1)


class ResidualBlock(nn.Module):
    """Twice norm, swish and convolution, added to what came in (through a 1x1 convolution where the channels change).

    The embedding enters with the second norm, `norm2(x, embedding)`, see `orchard.nn.timestep`.
    """

    def __init__(self, inputs: int, outputs: int, *, norm1: nn.Module, norm2: nn.Module, dropout: float):
        super().__init__()
        self.norm1 = norm1
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = norm2
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        inner = self.conv1(F.silu(self.norm1(x)))
        inner = self.conv2(self.dropout(F.silu(self.norm2(inner, embedding))))
        return self.shortcut(x) + inner


class Level(nn.Module):
    """The blocks at one resolution, each with what follows it: attention, or nothing."""

    def __init__(self, blocks: Sequence[nn.Module], attentions: Sequence[nn.Module]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attentions = nn.ModuleList(attentions)


class DownLevel(Level):
    def forward(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        """The map after every block, (B, C, H, W) each."""
        maps = [x]
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            maps.append(attention(block(maps[-1], embedding)))
        return maps[1:]


class UpLevel(Level):
    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """The map after all blocks, each of which takes the last of `skips` away and joins it to its input."""
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            x = attention(block(torch.cat([x, skips.pop()], dim=1), embedding))
        return x


class UNet(nn.Module):
    """Noisy images (B, in_channels, H, W) and an embedding (B, E) to a prediction (B, out_channels, H, W).

    Args:
        config: the shape; H and W are multiples of `config.stride`.
        out_channels: of the prediction.
        block: `block(inputs, outputs)` makes a residual block, called with `(x, embedding)`.
        attention: `attention(channels)` makes what follows the blocks of levels that have attention.
        downsample: `downsample(channels)` makes what halves height and width.
        norm_out: the norm before the last convolution.
    """

    def __init__(
        self,
        config: UNetConfig,
        out_channels: int,
        *,
        block: Callable[[int, int], nn.Module],
        attention: Callable[[int], nn.Module],
        downsample: Callable[[int], nn.Module],
        norm_out: nn.Module,
    ):
        super().__init__()
        c, widths = config, config.widths

        def parts(inputs: Sequence[int], outputs: int, attended: bool) -> tuple[list[nn.Module], list[nn.Module]]:
            blocks = [block(channels, outputs) for channels in inputs]
            return blocks, [attention(outputs) if attended else nn.Identity() for _ in blocks]

        self.conv_in = nn.Conv2d(c.in_channels, c.width, 3, padding=1)
        self.down, self.downsamples = nn.ModuleList(), nn.ModuleList()
        x, skips = c.width, [c.width]  # channels of the map at hand, and of those that are kept
        for n, width in enumerate(widths):
            self.down.append(DownLevel(*parts([x] + [width] * (c.blocks - 1), width, c.attention[n])))
            skips += [width] * c.blocks
            if n < len(widths) - 1:
                self.downsamples.append(downsample(width))
                skips.append(width)
            x = width
        self.middle = nn.ModuleList([block(x, x), attention(x), block(x, x)])
        self.up, self.upsamples = nn.ModuleList(), nn.ModuleList()  # in the order of the computation
        for n, width in reversed(list(enumerate(widths))):
            inputs = [before + skips.pop() for before in [x] + [width] * c.blocks]
            self.up.append(UpLevel(*parts(inputs, width, c.attention[n])))
            if n:
                self.upsamples.append(Upsample(width))
            x = width
        self.norm_out = norm_out
        self.conv_out = nn.Conv2d(x, out_channels, 3, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.conv_in(x)
        skips = [x]
        for n, level in enumerate(self.down):
            skips += level(x, embedding)
            x = skips[-1]
            if n < len(self.downsamples):
                x = self.downsamples[n](x)
                skips.append(x)
        first, attention, second = self.middle
        x = second(attention(first(x, embedding)), embedding)
        for n, level in enumerate(self.up):
            x = level(x, embedding, skips)
            if n < len(self.upsamples):
                x = self.upsamples[n](x)
        return self.conv_out(F.silu(self.norm_out(x)))

    def last_layers(self) -> Iterator[nn.Conv2d | nn.Linear]:
        """The last layer of every branch and of the network, which papers begin at zero: each block an identity."""
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                yield module.conv2
            elif isinstance(module, SpatialAttention):
                yield module.attention.out
        yield self.conv_out

    def layer_groups(self, prefix: str) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output; `prefix` is what this module is called."""
        down = [(f"{prefix}.down.{n}.", f"{prefix}.downsamples.{n}.") for n in range(len(self.down))]
        up = [(f"{prefix}.up.{n}.", f"{prefix}.upsamples.{n}.") for n in range(len(self.up))]
        ends = [(f"{prefix}.conv_in.",), (f"{prefix}.norm_out.", f"{prefix}.conv_out.")]
        return [ends[0], *down, (f"{prefix}.middle.",), *up, ends[1]]
