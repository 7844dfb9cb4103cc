"""CycleGAN: two generators, there and back, each judged by a discriminator; no pairs are needed.

Zhu et al. 2017 (arXiv:1703.10593), section 4 and appendix 7.2. The generators are those of Johnson et al. 2016
(arXiv:1603.08155): two convolutions that halve, residual blocks, two that double, with instance norm, and mirrored
pixels around convolutions of stride 1. Legend: B images, H x W pixels, W channels at the image's size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.translation.contract import Direction, ImageTranslator, check_sizes, example_of_both_sides
from orchard.nn.conv import initialise_normal
from orchard.nn.patch_discriminator import PatchDiscriminator

STD = 0.02  # of all weights at the start
HALVINGS = 2
# What official code calls the networks, each of which is a file: G_A makes B of A, and D_A judges what is B.
FILES = {
    "generators.AtoB.": "G_A.", "generators.BtoA.": "G_B.", "discriminators.B.": "D_A.", "discriminators.A.": "D_B.",
}  # fmt: skip


@dataclass(frozen=True)
class CycleGANConfig:
    image_size: int = 256
    in_channels: int = 3  # of both sides, as each generator also learns to leave images of its own side as they are
    blocks: int = 9
    width: int = 64
    discriminator_width: int = 64
    discriminator_layers: int = 3  # of stride 2; with 3 a score is of 70 x 70 pixels

    def __post_init__(self) -> None:
        check_sizes(self.image_size, 2**HALVINGS, self.discriminator_layers)
        if self.image_size < 4 * 2**HALVINGS:
            raise ValueError(f"image_size is {self.image_size}, expected {4 * 2**HALVINGS} or more")


@dataclass(frozen=True)
class Translated:
    """to_b: (B, C, H, W) made of images of A; to_a: made of images of B."""

    to_b: Tensor
    to_a: Tensor


def norm(width: int) -> nn.Module:
    """Instance norm without weights; what it would add, the convolution before it has as a bias."""
    return nn.InstanceNorm2d(width)


class Block(nn.Module):
    """Two 3x3 convolutions, added to what came in."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect")
        self.norm1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect")
        self.norm2 = norm(width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return result


class ResNetGenerator(nn.Module):
    """Images (B, C, H, W) in [-1, 1] to the same of the other side; sides are multiples of 4."""

    def __init__(self, c: CycleGANConfig):
        super().__init__()
        w = c.width
        self.head = nn.Conv2d(c.in_channels, w, 7, padding=3, padding_mode="reflect")
        self.head_norm = norm(w)
        self.down = nn.ModuleList(nn.Conv2d(w * 2**n, w * 2 ** (n + 1), 3, 2, padding=1) for n in range(HALVINGS))
        self.down_norms = nn.ModuleList(norm(w * 2 ** (n + 1)) for n in range(HALVINGS))
        self.blocks = nn.Sequential(*(Block(w * 2**HALVINGS) for _ in range(c.blocks)))
        doubling = partial(nn.ConvTranspose2d, kernel_size=3, stride=2, padding=1, output_padding=1)
        self.up = nn.ModuleList(doubling(w * 2 ** (n + 1), w * 2**n) for n in reversed(range(HALVINGS)))
        self.up_norms = nn.ModuleList(norm(w * 2**n) for n in reversed(range(HALVINGS)))
        self.tail = nn.Conv2d(w, c.in_channels, 7, padding=3, padding_mode="reflect")

    def forward(self, images: Tensor) -> Tensor:
        x = self.head_norm(self.head(images)).relu()
        for conv, between in zip(self.down, self.down_norms, strict=True):
            x = between(conv(x)).relu()
        x = self.blocks(x)
        for conv, between in zip(self.up, self.up_norms, strict=True):
            x = between(conv(x)).relu()
        translated: Tensor = self.tail(x).tanh()
        return translated


class CycleGAN(ImageTranslator):
    """Images of A and of B, (B, C, H, W) in [-1, 1], to images of the other side."""

    def __init__(self, config: CycleGANConfig):
        super().__init__()
        self.config = config
        self.generators = nn.ModuleDict({direction: ResNetGenerator(config) for direction in self.directions})
        self.discriminators = nn.ModuleDict({
            side: PatchDiscriminator(
                config.in_channels, width=config.discriminator_width, layers=config.discriminator_layers, norm=norm
            )
            for side in ("A", "B")
        })  # fmt: skip
        initialise_normal(self, STD)

    @property
    def multiple(self) -> int:
        return int(2**HALVINGS)

    @property
    def directions(self) -> tuple[Direction, ...]:
        return ("AtoB", "BtoA")

    def channels(self, side: str) -> int:
        return int(self.config.in_channels)

    def forward(self, a: Tensor, b: Tensor) -> Translated:
        return Translated(self.translate(a, "AtoB"), self.translate(b, "BtoA"))

    def translate(self, images: Tensor, direction: Direction) -> Tensor:
        self.check(images, self.config.in_channels)
        translated: Tensor = self.generators[direction](images)
        return translated

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters: the generators', then the discriminators'."""
        return [("generators.",), ("discriminators.",)]


def junyanz_names(config: Any) -> list[tuple[str, str]]:
    """The names of junyanz/pytorch-CycleGAN-and-pix2pix, whose files hold one network each, with that of the file
    before them."""
    rows = []
    for ours, theirs in FILES.items():
        if ours.startswith("discriminators"):
            rows.append((f"{ours}layers.{{}}", f"{theirs}model.{{}}"))
            continue
        behind = 10 + config.blocks  # ten entries of the head and the halvings, paddings, norms and ReLUs among them
        places = {
            "head": 1, "down.0": 4, "down.1": 7, "up.0": behind, "up.1": behind + 3, "tail": behind + 7,
            **{f"blocks.{n}.conv{m}": f"{10 + n}.conv_block.{1 if m == 1 else 5}"
               for n in range(config.blocks) for m in (1, 2)},
        }  # fmt: skip
        rows += [(f"{ours}{name}.{{}}", f"{theirs}model.{place}.{{}}") for name, place in places.items()]
    return rows


def infer_config(config: Any, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """Widths and channels, read off the first convolutions."""
    first, judge = lookup("generators.AtoB.head.weight"), lookup("discriminators.B.layers.0.weight")
    found: dict[str, Any] = {}
    if first is not None:
        found |= {"width": len(first), "in_channels": first.shape[1]}
    return found if judge is None else {**found, "discriminator_width": len(judge)}


VARIANTS = {
    "cyclegan": CycleGANConfig(),
    "cyclegan_6blocks": CycleGANConfig(image_size=128, blocks=6),
    "cyclegan_nano": CycleGANConfig(
        image_size=64, blocks=3, width=16, discriminator_width=16, discriminator_layers=2
    ),
}  # fmt: skip
LANDMARK = Landmark(
    model=CycleGAN,
    variants=VARIANTS,
    names={"junyanz": junyanz_names},
    infer_config=infer_config,
    # Files from before PyTorch 0.4 have statistics of instance norms, of which nothing is computed.
    not_weights={"junyanz": ("*.running_mean", "*.running_var", "*.num_batches_tracked")},
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0, "interpolation": "bicubic"}},
    example=example_of_both_sides,
)
