"""VQ-VAE: an autoencoder whose latents are whole numbers (van den Oord, Vinyals, Kavukcuoglu 2017, arXiv:1711.00937).

Two convolutions of stride 2 and a few residual blocks give a grid of vectors, each is replaced by the nearest of K
codes, and the mirror image draws the picture from them. The gradient skips the choice. Legend: B pictures, C channels,
h x w the grid, D the width of a code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from orchard.models import Landmark
from orchard.nn.quantizer import EmaQuantizer, Reconstruction, VectorQuantizer, check_codes, check_pictures

STRIDE = 4


@dataclass(frozen=True)
class VQVAEConfig:
    codes: int = 512
    code_width: int = 64
    width: int = 128
    residual_width: int = 32
    residual_blocks: int = 2
    image_size: int = 32
    in_channels: int = 3
    beta: float = 0.25
    decay: float | None = 0.99  # of the averages that codes are (appendix A.1); none: codes learned by a loss

    def __post_init__(self) -> None:
        if self.image_size % STRIDE:
            raise ValueError(f"a picture of {self.image_size} pixels does not divide into cells of {STRIDE}")

    @property
    def stride(self) -> int:
        """Pixels a side that one code stands for."""
        return STRIDE


class ResidualBlock(nn.Module):
    """ReLU, 3x3 convolution, ReLU, 1x1 convolution, added to what came in."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 3, padding=1)
        self.conv2 = nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x.relu()).relu())


class VQVAE(nn.Module):
    """Pictures (B, C, H, W) in [-1, 1] to codes (B, H / 4, W / 4) and back."""

    value_range = (-1.0, 1.0)  # of the pictures it takes and gives
    stride = STRIDE

    def __init__(self, config: VQVAEConfig):
        super().__init__()
        self.config = c = config
        self.encoder = nn.Sequential(
            nn.Conv2d(c.in_channels, c.width // 2, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(c.width // 2, c.width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(c.width, c.width, 3, padding=1),
            *(ResidualBlock(c.width, c.residual_width) for _ in range(c.residual_blocks)),
            nn.ReLU(),
        )
        self.to_code = nn.Conv2d(c.width, c.code_width, 1)
        spread = (3 / c.code_width) ** 0.5  # variance 1 / D, as in Sonnet
        self.quantizer: VectorQuantizer | EmaQuantizer
        if c.decay is None:
            self.quantizer = VectorQuantizer(c.codes, c.code_width, beta=c.beta, beta_on="commitment", spread=spread)
        else:
            self.quantizer = EmaQuantizer(c.codes, c.code_width, beta=c.beta, decay=c.decay, eps=1e-5, spread=spread)
        self.decoder = nn.Sequential(
            nn.Conv2d(c.code_width, c.width, 3, padding=1),
            *(ResidualBlock(c.width, c.residual_width) for _ in range(c.residual_blocks)),
            nn.ReLU(),
            nn.ConvTranspose2d(c.width, c.width // 2, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(c.width // 2, c.in_channels, 4, stride=2, padding=1),
        )

    @property
    def code_vectors(self) -> Tensor:
        """The codebook, (K, D)."""
        return self.quantizer.codebook

    @property
    def last_layer(self) -> Tensor:
        """The weight that draws the pixels; a discriminator's share in the loss is measured on it."""
        return cast(Tensor, self.decoder[-1].weight)

    def latents(self, images: Tensor) -> Tensor:
        """What is quantized, (B, D, h, w)."""
        check_pictures(images, self.config.in_channels, STRIDE)
        return self.to_code(self.encoder(images))

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, C, H, W) to codes (B, h, w) int64."""
        codes: Tensor = self.quantizer(self.latents(images)).codes
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, h, w) int64 to pictures (B, C, H, W)."""
        check_codes(codes, self.config.codes)
        return self.decoder(self.quantizer.lookup(codes))

    def forward(self, images: Tensor) -> Reconstruction:
        latents = self.latents(images)
        found = self.quantizer(latents)
        return Reconstruction(self.decoder(found.vectors), found.codes, found.loss, latents)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output."""
        return [("encoder.",), ("to_code.", "quantizer."), ("decoder.",)]


VARIANTS = {
    "vqvae_nano": VQVAEConfig(codes=64, code_width=16, width=32, residual_width=16, image_size=28, in_channels=1),
    "vqvae_32": VQVAEConfig(),
    "vqvae_32_loss": VQVAEConfig(decay=None),
}
LANDMARK = Landmark(model=VQVAE, variants=VARIANTS)
