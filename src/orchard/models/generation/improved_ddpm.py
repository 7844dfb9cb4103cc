"""Improved DDPM: the variance of a step is learned too (Nichol & Dhariwal 2021, arXiv:2102.09672).

The U-Net of Ho et al. with several heads, attention at two resolutions, an embedding that scales and shifts (section
2.2, appendix A), an output for the variance (section 3.1) and classes as an option. Legend: B images, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from orchard.models import Landmark, Rule
from orchard.models.generation import ddpm_names
from orchard.models.generation.denoiser import Denoiser, DenoiserConfig, example
from orchard.nn.autoencoder import SpatialAttention
from orchard.nn.checks import check_labels
from orchard.nn.denoising_unet import ResidualBlock, UNet
from orchard.nn.timestep import NormThenScaleShift, ShiftThenNorm, TimestepEmbedding

EPS = 1e-5
EMBEDDING_ENTERS = {"shift": ShiftThenNorm, "scale_shift": NormThenScaleShift}


@dataclass(frozen=True)
class ImprovedDDPMConfig(DenoiserConfig):
    attention_at: tuple[int, ...] = (16, 8)
    blocks: int = 3
    schedule: Literal["linear", "cosine"] = "cosine"
    timesteps: int = 4000
    variance: Literal["fixed_small", "fixed_large", "learned", "learned_range"] = "learned_range"
    heads: int = 4
    embedding: Literal["shift", "scale_shift"] = "scale_shift"  # what the timestep does in a block
    classes: int = 0  # 0: a model without classes

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embedding not in EMBEDDING_ENTERS:
            raise ValueError(f"embedding is one of {', '.join(EMBEDDING_ENTERS)}, got {self.embedding!r}")
        for width in self.widths:
            if width % self.heads:
                raise ValueError(f"a width of {width} does not divide into {self.heads} heads")


class ImprovedDDPM(Denoiser):
    """Noisy images (B, C, H, W), timesteps (B,) and classes (B,) to the prediction (B, C or 2C, H, W).

    Timesteps are numbers from 0 to below `config.timestep_range`. `classes`, int64, are given if and only if the model
    has some.
    """

    config: ImprovedDDPMConfig

    def __init__(self, config: ImprovedDDPMConfig):
        super().__init__()
        self.config = c = config
        width, entry = 4 * c.width, EMBEDDING_ENTERS[c.embedding]

        def norm(channels: int) -> nn.GroupNorm:
            return nn.GroupNorm(c.groups, channels, eps=EPS)

        def block(inputs: int, outputs: int) -> ResidualBlock:
            norm2 = entry(outputs, width, norm(outputs))
            return ResidualBlock(inputs, outputs, norm1=norm(inputs), norm2=norm2, dropout=c.dropout)

        self.time = TimestepEmbedding(c.width, width, order="cos_sin", endpoint=False)
        self.classes = nn.Embedding(c.classes, width) if c.classes else None
        self.unet = UNet(
            c,
            c.out_channels,
            block=block,
            attention=lambda channels: SpatialAttention(channels, c.groups, heads=c.heads, eps=EPS),
            downsample=lambda channels: nn.Conv2d(channels, channels, 3, stride=2, padding=1),
            norm_out=norm(c.widths[0]),
        )
        for layer in self.unet.last_layers():  # everything else begins as PyTorch's layers do
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, images: Tensor, timesteps: Tensor, classes: Tensor | None = None) -> Tensor:
        self.check(images, timesteps)
        embedding = self.time(timesteps)
        if self.classes is not None:
            check_labels(classes, images.shape[0], self.config.classes)
            embedding = embedding + self.classes(classes)
        elif classes is not None:
            raise ValueError("expected no classes: this model has none")
        return self.unet(images, embedding)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output."""
        return [("time.", "classes."), *self.unet.layer_groups("unet")]


def openai_names(config: ImprovedDDPMConfig) -> list[Rule | tuple[str, str]]:
    """The names of openai/improved-diffusion, whose lists count blocks and what halves or doubles in one row."""
    rows: list[Rule | tuple[str, str]] = [
        ("time.fc1.{}", "time_embed.0.{}"),
        ("time.fc2.{}", "time_embed.2.{}"),
        ("classes.weight", "label_emb.weight"),
        ("unet.conv_in.{}", "input_blocks.0.0.{}"),
        ("unet.norm_out.{}", "out.0.{}"),
        ("unet.conv_out.{}", "out.2.{}"),
        *_block("unet.middle.0", "middle_block.0"),
        *_attention("unet.middle.1", "middle_block.1", config.heads),
        *_block("unet.middle.2", "middle_block.2"),
    ]
    levels, attended = len(config.multipliers), config.attention
    for n in range(levels):
        first = 1 + n * (config.blocks + 1)
        for k in range(config.blocks):
            rows += _block(f"unet.down.{n}.blocks.{k}", f"input_blocks.{first + k}.0")
            rows += _attention(f"unet.down.{n}.attentions.{k}", f"input_blocks.{first + k}.1", config.heads)
        rows.append((f"unet.downsamples.{n}.{{}}", f"input_blocks.{first + config.blocks}.0.op.{{}}"))
        first = n * (config.blocks + 1)
        for k in range(config.blocks + 1):
            rows += _block(f"unet.up.{n}.blocks.{k}", f"output_blocks.{first + k}.0")
            rows += _attention(f"unet.up.{n}.attentions.{k}", f"output_blocks.{first + k}.1", config.heads)
        place = 2 if attended[levels - 1 - n] else 1  # after the block, and its attention if there is any
        rows.append((f"unet.upsamples.{n}.{{}}", f"output_blocks.{first + config.blocks}.{place}.conv.{{}}"))
    return rows


def hf_names(config: ImprovedDDPMConfig) -> list[Rule | tuple[str, str]]:
    """The names of diffusers' UNet2DModel, whose heads have one width at all levels."""
    return [("classes.weight", "class_embedding.weight"), *ddpm_names.hf_names(config)]


def _block(ours: str, theirs: str) -> list[tuple[str, str]]:
    return [
        (f"{ours}.norm1.{{}}", f"{theirs}.in_layers.0.{{}}"),
        (f"{ours}.conv1.{{}}", f"{theirs}.in_layers.2.{{}}"),
        (f"{ours}.norm2.projection.{{}}", f"{theirs}.emb_layers.1.{{}}"),
        (f"{ours}.norm2.norm.{{}}", f"{theirs}.out_layers.0.{{}}"),
        (f"{ours}.conv2.{{}}", f"{theirs}.out_layers.3.{{}}"),
        (f"{ours}.shortcut.{{}}", f"{theirs}.skip_connection.{{}}"),
    ]


def _attention(ours: str, theirs: str, heads: int) -> list[Rule | tuple[str, str]]:
    """Theirs has rows by head, then query, key and value; ours by query, key and value, then head."""

    def by_kind(rows: Tensor) -> Tensor:
        return rows.reshape(heads, 3, -1, *rows.shape[1:]).transpose(0, 1).flatten(0, 2)

    def by_head(rows: Tensor) -> Tensor:
        return rows.reshape(3, heads, -1, *rows.shape[1:]).transpose(0, 1).flatten(0, 2)

    return [
        Rule(
            f"{ours}.attention.qkv.weight",
            (f"{theirs}.qkv.weight",),
            join=lambda kernel: by_kind(kernel)[..., 0],
            split=lambda matrix: (by_head(matrix)[..., None],),
        ),
        Rule(
            f"{ours}.attention.qkv.bias",
            (f"{theirs}.qkv.bias",),
            join=by_kind,
            split=lambda bias: (by_head(bias),),
        ),
        Rule(
            f"{ours}.attention.out.weight",
            (f"{theirs}.proj_out.weight",),
            join=lambda kernel: kernel[..., 0],
            split=lambda matrix: (matrix[..., None],),
        ),
        (f"{ours}.attention.out.bias", f"{theirs}.proj_out.bias"),
        (f"{ours}.norm.{{}}", f"{theirs}.norm.{{}}"),
    ]


_SMALL: dict[str, Any] = dict(in_channels=1, width=16, blocks=1, groups=8, heads=2, timesteps=1000)
_LSUN: dict[str, Any] = dict(
    attention_at=(16,), blocks=2, heads=1, embedding="shift", schedule="linear", timesteps=1000
)

VARIANTS = {
    "improved_ddpm_nano": ImprovedDDPMConfig(28, (1, 2, 2), attention_at=(7, 8), **_SMALL),
    "improved_ddpm_cifar10": ImprovedDDPMConfig(32, (1, 2, 2, 2), dropout=0.3),
    "improved_ddpm_imagenet64": ImprovedDDPMConfig(64, (1, 2, 3, 4)),
    "improved_ddpm_imagenet64_classes": ImprovedDDPMConfig(
        64, (1, 2, 3, 4), width=192, classes=1000, timestep_range=4000
    ),
    "improved_ddpm_lsun256": ImprovedDDPMConfig(256, (1, 1, 2, 2, 4, 4), **_LSUN),
}
LANDMARK = Landmark(
    model=ImprovedDDPM,
    variants=VARIANTS,
    names={"openai": openai_names, "hf": hf_names},
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0}},
    example=example,
)
