"""DiscreteVAE of DALLE-pytorch (lucidrains, after Ramesh et al. 2021, arXiv:2102.12092): a small dVAE to train oneself.

Convolutions of stride 2, a relaxed choice of codes, and the way back; pixels are compared by their squared difference.
Legend: B pictures, C channels, h x w the grid, K codes, D the width of a code.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from orchard.models import Landmark
from orchard.nn.quantizer import GumbelQuantizer, Reconstruction, check_codes, check_pictures


@dataclass(frozen=True)
class DiscreteVAEConfig:
    codes: int = 8192
    code_width: int = 512
    width: int = 64
    layers: int = 3  # each halves the resolution
    blocks: int = 1  # residual blocks on the grid, on either side
    image_size: int = 256
    in_channels: int = 3
    temperature: float = 0.9
    kl_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.layers < 1 or self.blocks < 1:
            raise ValueError(f"expected one layer and one block or more, got {self.layers} and {self.blocks}")
        if self.image_size % self.stride:
            raise ValueError(f"a picture of {self.image_size} pixels does not divide into cells of {self.stride}")

    @property
    def stride(self) -> int:
        """Pixels a side that one code stands for."""
        return int(2**self.layers)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with ReLUs and a 1x1 one, added to what came in."""

    def __init__(self, width: int):
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.path(x)


class DiscreteVAE(nn.Module):
    """Pictures (B, C, H, W) in [-1, 1] to codes (B, H / f, W / f) and back; f is `config.stride`."""

    value_range = (-1.0, 1.0)  # of the pictures it takes and gives

    def __init__(self, config: DiscreteVAEConfig):
        super().__init__()
        self.config = c = config
        self.stride = c.stride
        downs: list[nn.Module] = []
        ups: list[nn.Module] = []
        for n in range(c.layers):
            downs += [nn.Conv2d(c.width if n else c.in_channels, c.width, 4, stride=2, padding=1), nn.ReLU()]
            ups += [nn.ConvTranspose2d(c.width, c.width, 4, stride=2, padding=1), nn.ReLU()]
        self.encoder = nn.Sequential(*downs, *(ResidualBlock(c.width) for _ in range(c.blocks)))
        self.quantizer = GumbelQuantizer(
            c.width, c.codes, c.code_width, temperature=c.temperature, kl_weight=c.kl_weight
        )
        self.from_code = nn.Conv2d(c.code_width, c.width, 1)
        self.decoder = nn.Sequential(*(ResidualBlock(c.width) for _ in range(c.blocks)), *ups)
        self.output = nn.Conv2d(c.width, c.in_channels, 1)

    @property
    def code_vectors(self) -> Tensor:
        """The codebook, (K, D)."""
        return self.quantizer.codebook

    @property
    def last_layer(self) -> Tensor:
        """The weight that draws the pixels; a discriminator's share in the loss is measured on it."""
        return self.output.weight

    def features(self, images: Tensor) -> Tensor:
        """What the codes are scored by, (B, width, h, w)."""
        check_pictures(images, self.config.in_channels, self.stride)
        return self.encoder(images)

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, C, H, W) to codes (B, h, w) int64."""
        return self.quantizer.scores(self.features(images)).argmax(1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, h, w) int64 to pictures (B, C, H, W)."""
        check_codes(codes, self.config.codes)
        return self.draw(self.quantizer.lookup(codes))

    def draw(self, vectors: Tensor) -> Tensor:
        """Pictures from any mixture of codes, (B, D, h, w) → (B, C, H, W)."""
        return self.output(self.decoder(self.from_code(vectors)))

    def forward(self, images: Tensor) -> Reconstruction:
        features = self.features(images)
        found = self.quantizer(features)
        return Reconstruction(self.draw(found.vectors), found.codes, found.loss, features)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output."""
        return [("encoder.",), ("quantizer.", "from_code."), ("decoder.", "output.")]


def dalle_pytorch_names(config: DiscreteVAEConfig) -> list[tuple[str, str]]:
    layers, blocks = config.layers, config.blocks
    return [
        # ours have a ReLU between two convolutions, theirs a pair of both
        *((f"encoder.{2 * n}.{{}}", f"encoder.{n}.0.{{}}") for n in range(layers)),
        *((f"encoder.{2 * layers + n}.path.{{}}", f"encoder.{layers + n}.net.{{}}") for n in range(blocks)),
        ("quantizer.scores.{}", f"encoder.{layers + blocks}.{{}}"),
        ("quantizer.codebook", "codebook.weight"),
        ("from_code.{}", "decoder.0.{}"),
        *((f"decoder.{n}.path.{{}}", f"decoder.{n + 1}.net.{{}}") for n in range(blocks)),
        *((f"decoder.{blocks + 2 * n}.{{}}", f"decoder.{blocks + 1 + n}.0.{{}}") for n in range(layers)),
        ("output.{}", f"decoder.{blocks + 1 + layers}.{{}}"),
    ]


VARIANTS = {
    "discrete_vae_nano": DiscreteVAEConfig(codes=128, code_width=32, width=32, layers=2, image_size=28, in_channels=1),
    "discrete_vae": DiscreteVAEConfig(),
}
LANDMARK = Landmark(
    model=DiscreteVAE,
    variants=VARIANTS,
    names={"dalle_pytorch": dalle_pytorch_names},
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0}},
)
