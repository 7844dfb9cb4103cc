"""The dVAE of DALL-E: pictures as 8192 words, learned by a relaxed choice (Ramesh et al. 2021, arXiv:2102.12092).

The encoder scores the codes at every place, training mixes them by a Gumbel softmax, and the decoder gives, for every
value of the picture, location and scale of a logit-Laplace density (appendix A.3). Legend: B pictures, C channels,
h x w the grid, D the width of a code, K codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from orchard.models import Landmark, Rule
from orchard.nn.quantizer import GumbelQuantizer, Reconstruction, check_codes, check_pictures

GROUPS = 4
STRIDE = 2 ** (GROUPS - 1)
MARGIN = 0.1  # pictures are squeezed into [0.1, 0.9], inside the density's support


@dataclass(frozen=True)
class DalleDVAEConfig:
    codes: int = 8192
    width: int = 256
    code_width: int = 128
    blocks: int = 2  # in each of the four groups
    image_size: int = 256
    in_channels: int = 3
    temperature: float = 1.0  # of the relaxed choice; the paper lets it fall from 1 to 1/16 over 150,000 steps
    kl_weight: float = 6.6 / 192  # the paper's 6.6, shared by the 192 values of a place

    def __post_init__(self) -> None:
        if self.width % 4:
            raise ValueError(f"a width of {self.width} does not divide by 4, as the inside of a block has to")
        if self.image_size % STRIDE:
            raise ValueError(f"a picture of {self.image_size} pixels does not divide into cells of {STRIDE}")

    @property
    def stride(self) -> int:
        """Pixels a side that one code stands for."""
        return STRIDE


class Block(nn.Module):
    """Four convolutions through a quarter of the width, each after a ReLU, added with a small gain."""

    def __init__(self, inputs: int, outputs: int, kernels: tuple[int, ...], gain: float):
        super().__init__()
        inner = outputs // 4
        widths = [inputs, inner, inner, inner, outputs]
        self.path = nn.ModuleList(
            nn.Conv2d(a, b, kernel, padding=kernel // 2)
            for (a, b), kernel in zip(pairwise(widths), kernels, strict=True)
        )
        self.gain = gain
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = x
        for conv in self.path:
            inner = conv(inner.relu())
        return self.shortcut(x) + self.gain * inner


def _groups(
    start: int, widths: tuple[int, ...], blocks: int, kernels: tuple[int, ...], resample: nn.Module
) -> nn.ModuleList:
    """Four groups of blocks, the last without a change of resolution after it."""
    gain = 1 / (GROUPS * blocks) ** 2
    groups = nn.ModuleList()
    for n, (inputs, width) in enumerate(pairwise([start, *widths])):
        parts: list[nn.Module] = [Block(width if k else inputs, width, kernels, gain) for k in range(blocks)]
        groups.append(nn.Sequential(*parts, resample) if n < GROUPS - 1 else nn.Sequential(*parts))
    return groups


class DalleDVAE(nn.Module):
    """Pictures (B, C, H, W) in [0, 1] to codes (B, H / 8, W / 8) and back."""

    value_range = (0.0, 1.0)  # of the pictures it takes and gives
    stride = STRIDE

    def __init__(self, config: DalleDVAEConfig):
        super().__init__()
        self.config = c = config
        widths = tuple(c.width * 2**n for n in range(GROUPS))
        self.input = nn.Conv2d(c.in_channels, c.width, 7, padding=3)
        self.encoder = _groups(c.width, widths, c.blocks, (3, 3, 3, 1), nn.MaxPool2d(2))
        self.quantizer = GumbelQuantizer(
            widths[-1], c.codes, c.code_width, temperature=c.temperature, kl_weight=c.kl_weight
        )
        self.code_bias = nn.Parameter(torch.zeros(c.code_width))
        self.decoder = _groups(c.code_width, widths[::-1], c.blocks, (1, 3, 3, 3), nn.Upsample(scale_factor=2.0))
        self.output = nn.Conv2d(c.width, 2 * c.in_channels, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=1 / math.sqrt(module.weight[0].numel()))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.quantizer.codebook, std=1 / math.sqrt(c.codes))  # the official one is a 1x1 convolution

    @property
    def code_vectors(self) -> Tensor:
        """The codebook, (K, D)."""
        return self.quantizer.codebook

    @property
    def last_layer(self) -> Tensor:
        """The weight that draws the pixels; a discriminator's share in the loss is measured on it."""
        return self.output.weight

    def features(self, images: Tensor) -> Tensor:
        """What the codes are scored by, (B, 8 · width, h, w)."""
        check_pictures(images, self.config.in_channels, STRIDE)
        x = self.input((1 - 2 * MARGIN) * images + MARGIN)
        for group in self.encoder:
            x = group(x)
        return x.relu()

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, C, H, W) to codes (B, h, w) int64."""
        return self.quantizer.scores(self.features(images)).argmax(1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, h, w) int64 to pictures (B, C, H, W): the middle of the density at every value."""
        check_codes(codes, self.config.codes)
        return _picture(self.density(self.quantizer.lookup(codes))[0])

    def density(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Location and logarithm of the scale, each (B, C, H, W), of the squeezed picture's logit."""
        x = vectors + self.code_bias[:, None, None]
        for group in self.decoder:
            x = group(x)
        location, log_scale = self.output(x.relu()).chunk(2, dim=1)
        return location, log_scale

    def forward(self, images: Tensor) -> Reconstruction:
        features = self.features(images)
        found = self.quantizer(features)
        location, log_scale = self.density(found.vectors)
        loss = logit_laplace_loss(images, location, log_scale)
        return Reconstruction(_picture(location), found.codes, found.loss, features, loss)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output."""
        return [("input.", "encoder."), ("quantizer.", "code_bias"), ("decoder.", "output.")]


def logit_laplace_loss(images: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
    """Mean negative log density of squeezed pictures, nats per value (appendix A.3, equation 2)."""
    x = (1 - 2 * MARGIN) * images.float() + MARGIN
    error = (x.logit() - location.float()).abs() * (-log_scale.float()).exp()
    return (error + math.log(2) + log_scale.float() + (x * (1 - x)).log()).mean()


def _picture(location: Tensor) -> Tensor:
    return ((location.sigmoid() - MARGIN) / (1 - 2 * MARGIN)).clamp(0, 1)


def openai_names(config: DalleDVAEConfig) -> list[Rule | tuple[str, str]]:
    """The names of openai/DALL-E: the state dicts of encoder and decoder under `encoder.` and `decoder.`."""
    rows: list[Rule | tuple[str, str]] = [
        Rule(
            "quantizer.codebook",
            ("decoder.blocks.input.w",),
            join=lambda kernel: kernel.flatten(1).T,  # (D, K, 1, 1) → (K, D)
            split=lambda codebook: (codebook.T[..., None, None],),
        ),
        ("code_bias", "decoder.blocks.input.b"),
    ]
    for part, letter in (("weight", "w"), ("bias", "b")):
        rows += [
            (f"input.{part}", f"encoder.blocks.input.{letter}"),
            (f"quantizer.scores.{part}", f"encoder.blocks.output.conv.{letter}"),
            (f"output.{part}", f"decoder.blocks.output.conv.{letter}"),
        ]
        for side in ("encoder", "decoder"):
            for n in range(GROUPS):
                for k in range(config.blocks):
                    ours, theirs = f"{side}.{n}.{k}", f"{side}.blocks.group_{n + 1}.block_{k + 1}"
                    rows.append((f"{ours}.shortcut.{part}", f"{theirs}.id_path.{letter}"))
                    rows += [(f"{ours}.path.{i}.{part}", f"{theirs}.res_path.conv_{i + 1}.{letter}") for i in range(4)]
    return rows


VARIANTS = {
    "dalle_dvae_nano": DalleDVAEConfig(codes=128, width=16, code_width=32, blocks=1, image_size=32, in_channels=1),
    "dalle_dvae": DalleDVAEConfig(),
}
LANDMARK = Landmark(
    model=DalleDVAE,
    variants=VARIANTS,
    names={"openai": openai_names},
    preprocess={"": {"mean": (0.0,) * 3, "std": (1.0,) * 3, "crop": 1.0}},
)
