"""VQGAN: pictures as words of a learned codebook (Esser, Rombach, Ommer 2021, arXiv:2012.09841).

A convolutional encoder gives a small grid of vectors, each is replaced by the nearest of K codes, and a decoder draws
the picture from the codes. What makes it sharp (perceptual loss, discriminator) is training, not network: see the
task "image-tokenization". Legend: B pictures, C channels, h x w the grid, D the width of a code, K codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from orchard.models import Landmark, Rule
from orchard.models.attention_names import attention_rules
from orchard.nn.autoencoder import Decoder, Encoder
from orchard.nn.quantizer import GumbelQuantizer, Reconstruction, VectorQuantizer, check_codes, check_pictures


@dataclass(frozen=True)
class VQGANConfig:
    codes: int
    multipliers: tuple[int, ...]  # channels of each level over `width`; a level has half the resolution of the last
    attention_at: tuple[int, ...] = ()  # resolutions, counted from `image_size`, whose blocks have attention
    image_size: int = 256
    in_channels: int = 3
    width: int = 128
    blocks: int = 2  # residual blocks of a level in the encoder; the decoder has one more
    groups: int = 32  # of every norm
    latent: int = 256  # channels that leave the encoder and enter the decoder
    code_width: int = 256
    quantizer: Literal["nearest", "gumbel"] = "nearest"
    beta: float = 0.25
    beta_on: Literal["commitment", "codebook"] = "codebook"  # the published models; equation 4 has "commitment"
    temperature: float = 0.9  # of the gumbel quantizer, and the weight of its divergence
    kl_weight: float = 1e-8

    def __post_init__(self) -> None:
        if self.quantizer == "gumbel" and self.latent != self.code_width:
            raise ValueError(f"the gumbel quantizer needs latent = code_width, got {self.latent} and {self.code_width}")
        for width in (self.width, *self.widths):
            if width % self.groups:
                raise ValueError(f"a width of {width} does not divide into {self.groups} groups")
        if self.image_size % self.stride:
            raise ValueError(f"a picture of {self.image_size} pixels does not divide into cells of {self.stride}")

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self.width * times for times in self.multipliers)

    @property
    def attention(self) -> tuple[bool, ...]:
        """Whether each level has attention; the size of the picture that comes in has no say."""
        return tuple(self.image_size // 2**n in self.attention_at for n in range(len(self.multipliers)))

    @property
    def stride(self) -> int:
        """Pixels a side that one code stands for."""
        return 2 ** (len(self.multipliers) - 1)


class VQGAN(nn.Module):
    """Pictures (B, C, H, W) in [-1, 1] to codes (B, H / f, W / f) and back; f is `config.stride`."""

    value_range = (-1.0, 1.0)  # of the pictures it takes and gives

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.config = c = config
        self.stride = c.stride
        shape: dict[str, Any] = dict(widths=c.widths, attention=c.attention, blocks=c.blocks, groups=c.groups)
        self.encoder = Encoder(c.in_channels, c.latent, stem=c.width, **shape)
        self.to_code = nn.Conv2d(c.latent, c.code_width, 1)
        self.quantizer: VectorQuantizer | GumbelQuantizer
        if c.quantizer == "nearest":
            self.quantizer = VectorQuantizer(c.codes, c.code_width, beta=c.beta, beta_on=c.beta_on, spread=1 / c.codes)
        else:
            self.quantizer = GumbelQuantizer(
                c.latent, c.codes, c.code_width, temperature=c.temperature, kl_weight=c.kl_weight
            )
        self.from_code = nn.Conv2d(c.code_width, c.latent, 1)
        self.decoder = Decoder(c.latent, c.in_channels, **shape)

    @property
    def code_vectors(self) -> Tensor:
        """The codebook, (K, D)."""
        return self.quantizer.codebook

    @property
    def last_layer(self) -> Tensor:
        """The weight that draws the pixels; a discriminator's share in the loss is measured on it."""
        return self.decoder.conv_out.weight

    def latents(self, images: Tensor) -> Tensor:
        """What is quantized, (B, D, h, w)."""
        check_pictures(images, self.config.in_channels, self.stride)
        return self.to_code(self.encoder(images))

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, C, H, W) to codes (B, h, w) int64."""
        codes: Tensor = self.quantizer(self.latents(images)).codes
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, h, w) int64 to pictures (B, C, H, W)."""
        check_codes(codes, self.config.codes)
        return self.draw(self.quantizer.lookup(codes))

    def draw(self, vectors: Tensor) -> Tensor:
        """Pictures from any vectors in the place of codes, (B, D, h, w) → (B, C, H, W)."""
        return self.decoder(self.from_code(vectors))

    def forward(self, images: Tensor) -> Reconstruction:
        latents = self.latents(images)
        found = self.quantizer(latents)
        return Reconstruction(self.draw(found.vectors), found.codes, found.loss, latents)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output."""
        return [("encoder.",), ("to_code.", "quantizer.", "from_code."), ("decoder.",)]


def taming_names(config: VQGANConfig) -> list[Rule | tuple[str, str]]:
    """The names of CompVis/taming-transformers and of latent-diffusion's VQModel, without those of `loss.`."""
    return _names(config, from_full_resolution=True)


def hf_names(config: VQGANConfig) -> list[Rule | tuple[str, str]]:
    """The names of transformers' JanusVQVAE: those of taming, but for the decoder's levels."""
    return _names(config, from_full_resolution=False)


def _names(config: VQGANConfig, *, from_full_resolution: bool) -> list[Rule | tuple[str, str]]:
    last = len(config.multipliers) - 1
    table = "embedding" if config.quantizer == "nearest" else "embed"
    rows: list[Rule | tuple[str, str]] = [
        ("to_code.{}", "quant_conv.{}"),
        ("from_code.{}", "post_quant_conv.{}"),
        ("quantizer.codebook", f"quantize.{table}.weight"),
        ("quantizer.scores.{}", "quantize.proj.{}"),
    ]
    for side, levels in (("encoder", "down"), ("decoder", "up")):
        for n in range(last + 1):
            # taming's decoder counts from full resolution, ours and transformers' in the order of the computation
            backwards = side == "decoder" and from_full_resolution
            ours, theirs = f"{side}.levels.{n}", f"{side}.{levels}.{last - n if backwards else n}"
            rows += [
                *_attention(f"{ours}.attentions.{{}}", f"{theirs}.attn.{{}}"),
                (f"{ours}.blocks.{{}}.shortcut.{{}}", f"{theirs}.block.{{}}.nin_shortcut.{{}}"),
                (f"{ours}.blocks.{{}}", f"{theirs}.block.{{}}"),
                (f"{ours}.resample.{{}}", f"{theirs}.{'downsample' if side == 'encoder' else 'upsample'}.conv.{{}}"),
            ]
        rows += [
            (f"{side}.middle.0.{{}}", f"{side}.mid.block_1.{{}}"),
            *_attention(f"{side}.middle.1", f"{side}.mid.attn_1"),
            (f"{side}.middle.2.{{}}", f"{side}.mid.block_2.{{}}"),
            (f"{side}.{{}}", f"{side}.{{}}"),
        ]
    return rows


def _attention(ours: str, theirs: str) -> list[Rule | tuple[str, str]]:
    """Theirs has four 1x1 convolutions where ours has two linear layers."""
    qkv = [f"{theirs}.{letter}" for letter in "qkv"]
    return [
        *attention_rules(f"{ours}.attention", qkv, f"{theirs}.proj_out"),
        (f"{ours}.norm.{{}}", f"{theirs}.norm.{{}}"),
    ]


_F16: dict[str, Any] = dict(multipliers=(1, 1, 2, 2, 4), attention_at=(16,))
_SMALL: dict[str, Any] = dict(blocks=1, groups=8, beta_on="commitment")

VARIANTS = {
    "vqgan_nano": VQGANConfig(
        codes=128, multipliers=(1, 2, 2), image_size=32, width=16, latent=32, code_width=8, **_SMALL
    ),
    "vqgan_tiny": VQGANConfig(
        codes=256,
        multipliers=(1, 2, 4, 4),
        attention_at=(8,),
        image_size=64,
        width=16,
        latent=64,
        code_width=16,
        **_SMALL,
    ),
    "vqgan_f16_1024": VQGANConfig(codes=1024, **_F16),
    "vqgan_f16_16384": VQGANConfig(codes=16384, **_F16),
    "vqgan_f8": VQGANConfig(codes=16384, multipliers=(1, 2, 2, 4), attention_at=(32,), latent=4, code_width=4),
    "vqgan_f8_256": VQGANConfig(codes=256, multipliers=(1, 2, 2, 4), attention_at=(32,), latent=4, code_width=4),
    "vqgan_f4": VQGANConfig(codes=8192, multipliers=(1, 2, 4), latent=3, code_width=3),
    "vqgan_gumbel_f8": VQGANConfig(codes=8192, multipliers=(1, 1, 2, 4), attention_at=(32,), quantizer="gumbel"),
}
LANDMARK = Landmark(
    model=VQGAN,
    variants=VARIANTS,
    names={"taming": taming_names, "hf": hf_names},
    not_weights={"taming": ("loss.discriminator.*", "loss.perceptual_loss.*")},
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0}},
)
