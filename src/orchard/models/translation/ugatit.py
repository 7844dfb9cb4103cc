"""U-GAT-IT: translators that attend to what sets the two sides apart, and norms that learn how much shape to change.

Kim et al. 2019 (arXiv:1907.10830, section 3 and appendix B), and the authors' PyTorch code. No pairs are needed.
Legend: B images, H x W pixels, W channels at the image's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.generation.quantized_blocks import QuantizationConfig, check_quantization
from orchard.models.translation.attention import ClassActivation, Judges, heat_of, least_side
from orchard.models.translation.contract import Attended, Direction, ImageTranslator, example_of_both_sides
from orchard.models.translation.ugatit_names import HALVINGS, infer_config, znxlwm_names
from orchard.nn.layer_instance_norm import AdaptiveLayerInstanceNorm, LayerInstanceNorm, clip_rho


@dataclass(frozen=True)
class UGATITConfig(QuantizationConfig):
    """`quantize` names convolutions of the global discriminators, from 0."""

    image_size: int = 256
    in_channels: int = 3  # of both sides
    width: int = 64
    blocks: int = 4  # before the attention, and as many after it
    light: bool = False  # gains and biases follow from the means of features, not from the whole map
    discriminator_width: int = 64
    global_layers: int = 7  # of the discriminators, as official code counts them
    local_layers: int = 5

    def __post_init__(self) -> None:
        least = 4 * 2**HALVINGS
        if self.image_size % 2**HALVINGS or self.image_size < least:
            raise ValueError(f"image_size is {self.image_size}, expected a multiple of {2**HALVINGS} from {least} on")
        for key in ("global_layers", "local_layers"):
            layers = getattr(self, key)
            if layers < 3:
                raise ValueError(f"{key} is {layers}, expected 3 or more")
            if self.image_size < least_side(layers):
                raise ValueError(
                    f"image_size is {self.image_size}; a discriminator with {layers} layers needs {least_side(layers)} "
                    f"pixels a side: enlarge it, or set fewer {key}"
                )
        check_quantization(self, self.global_layers - 1)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias over mirrored pixels."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, padding_mode="reflect", bias=False)


class InstanceNorm(nn.InstanceNorm2d):
    """Without weights, and in float32 also under autocast."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.float())


class Block(nn.Module):
    """Two 3x3 convolutions, added to what came in."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.norm1 = conv(width, width, 3), InstanceNorm(width)
        self.conv2, self.norm2 = conv(width, width, 3), InstanceNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return result


class AdaptiveBlock(nn.Module):
    """The same with norms whose gain and bias (B, W) are given."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.norm1 = conv(width, width, 3), AdaptiveLayerInstanceNorm(width)
        self.conv2, self.norm2 = conv(width, width, 3), AdaptiveLayerInstanceNorm(width)

    def forward(self, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        out = self.norm1(self.conv1(x), gain, bias).relu()
        result: Tensor = x + self.norm2(self.conv2(out), gain, bias)
        return result


class AttentionGenerator(nn.Module):
    """Images (B, C, H, W) in [-1, 1] to the same of the other side; sides are multiples of 4.

    One that is not light takes images of its size alone.
    """

    def __init__(self, c: UGATITConfig):
        super().__init__()
        w = c.width * 2**HALVINGS
        self.pooled = c.light
        widths = [c.width * 2**n for n in range(HALVINGS + 1)]
        self.down = nn.ModuleList([
            conv(c.in_channels, widths[0], 7),
            *(conv(inputs, 2 * inputs, 3, stride=2) for inputs in widths[:-1]),
        ])  # fmt: skip
        self.down_norms = nn.ModuleList(InstanceNorm(width) for width in widths)
        self.blocks = nn.Sequential(*(Block(w) for _ in range(c.blocks)))
        self.attention = ClassActivation(w, lambda width: nn.Linear(width, 1, bias=False), torch.relu)
        self.style = nn.ModuleList([
            nn.Linear(w if c.light else w * (c.image_size // 2**HALVINGS) ** 2, w, bias=False),
            nn.Linear(w, w, bias=False),
        ])  # fmt: skip
        self.gain, self.bias = nn.Linear(w, w, bias=False), nn.Linear(w, w, bias=False)
        self.adaptive = nn.ModuleList(AdaptiveBlock(w) for _ in range(c.blocks))
        self.up = nn.ModuleList(conv(inputs, inputs // 2, 3) for inputs in reversed(widths[1:]))
        self.up_norms = nn.ModuleList(LayerInstanceNorm(width) for width in reversed(widths[:-1]))
        self.tail = conv(c.width, c.in_channels, 7)

    def attend(self, images: Tensor) -> Attended:
        """Images of the other side, what the auxiliary classifier says of the given ones, and where it looked."""
        x = images
        for layer, norm in zip(self.down, self.down_norms, strict=True):
            x = norm(layer(x)).relu()
        x, logits = self.attention(self.blocks(x))
        heat = heat_of(x)
        style = x.mean((2, 3)) if self.pooled else x.flatten(1)
        for layer in self.style:
            style = layer(style).relu()
        gain, bias = self.gain(style), self.bias(style)
        for block in self.adaptive:
            x = block(x, gain, bias)
        for layer, norm in zip(self.up, self.up_norms, strict=True):
            x = norm(layer(F.interpolate(x, scale_factor=2.0, mode="nearest"))).relu()
        return Attended(self.tail(x).tanh(), logits, heat)

    def forward(self, images: Tensor) -> Tensor:
        return self.attend(images).images


@dataclass(frozen=True)
class TranslatedBoth:
    """to_b: what is made of images of A; to_a: of images of B."""

    to_b: Attended
    to_a: Attended


class UGATIT(ImageTranslator):
    """Images of A and of B, (B, C, H, W) in [-1, 1], to images of the other side."""

    def __init__(self, config: UGATITConfig):
        super().__init__()
        self.config = config
        self.generators = nn.ModuleDict({direction: AttentionGenerator(config) for direction in self.directions})
        layers = (config.global_layers, config.local_layers)
        self.discriminators = nn.ModuleDict({
            side: Judges(config.in_channels, config.discriminator_width, layers, config) for side in ("A", "B")
        })  # fmt: skip

    @property
    def multiple(self) -> int:
        return int(2**HALVINGS)

    @property
    def directions(self) -> tuple[Direction, ...]:
        return ("AtoB", "BtoA")

    @property
    def fixed_size(self) -> bool:
        return not self.config.light

    def channels(self, side: str) -> int:
        return int(self.config.in_channels)

    def forward(self, a: Tensor, b: Tensor) -> TranslatedBoth:
        return TranslatedBoth(self.attend(a, "AtoB"), self.attend(b, "BtoA"))

    def translate(self, images: Tensor, direction: Direction) -> Tensor:
        return self.attend(images, direction).images

    def attend(self, images: Tensor, direction: Direction) -> Attended:
        self.check(images, self.config.in_channels)
        generator = cast(AttentionGenerator, self.generators[direction])
        return generator.attend(images)

    def settle(self) -> None:
        """What follows each update of the generators: the shares of both kinds of statistics stay shares."""
        clip_rho(self.generators)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters: the generators', then the discriminators'."""
        return [("generators.",), ("discriminators.",)]


VARIANTS = {
    "ugatit": UGATITConfig(),
    "ugatit_light": UGATITConfig(light=True),
    "ugatit_nano": UGATITConfig(
        image_size=64, width=16, blocks=2, light=True, discriminator_width=16, global_layers=6, local_layers=4
    ),
}  # fmt: skip
LANDMARK = Landmark(
    model=UGATIT,
    variants=VARIANTS,
    names={"znxlwm": znxlwm_names},
    infer_config=infer_config,
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0, "interpolation": "bicubic"}},
    example=example_of_both_sides,
)
