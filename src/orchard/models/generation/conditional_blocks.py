"""What SAGAN and BigGAN are made of: residual blocks under spectral norm, and a discriminator that projects.

Zhang et al. 2018 (arXiv:1805.08318, section 4); Brock et al. 2018 (arXiv:1809.11096, appendix B), and the PyTorch code
of the latter. The blocks are those of SNGAN and of Miyato and Koyama 2018 (arXiv:1802.05637), which has the projection.
Legend: B images, C channels, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Rule
from orchard.models.generation.quantized_blocks import QuantizationConfig, Quantizers, check_quantization
from orchard.nn.checks import check_images, check_labels
from orchard.nn.conditional_norm import ConditionalBatchNorm2d
from orchard.nn.feature_quantizer import QuantizedFeatures, all_idle
from orchard.nn.self_attention_map import MapAttention
from orchard.nn.spectral_norm import SpectralConv2d, SpectralEmbedding, SpectralLinear


@dataclass(frozen=True)
class BlocksConfig(QuantizationConfig):
    """What the configurations of both landmarks have. ValueError for sizes that do not halve and for attention after a
    block that is not there."""

    generator_widths: tuple[int, ...]  # channels of the first map, and after each block, which doubles its side
    generator_attention: tuple[int, ...]  # numbers of the blocks that attention follows
    discriminator_widths: tuple[int, ...]  # channels after each block
    discriminator_attention: tuple[int, ...]
    halvings: int  # of the discriminator's blocks, the first ones halve the side
    image_size: int = 128
    in_channels: int = 3
    num_classes: int = 1000
    noise: int = 128  # numbers that an image is made of
    prior: Literal["normal", "uniform"] = "normal"

    def __post_init__(self) -> None:
        blocks = {"generator": len(self.generator_widths) - 1, "discriminator": len(self.discriminator_widths)}
        if min(blocks.values()) < 1:
            raise ValueError(
                "generator_widths names the first map and one block or more, discriminator_widths one or more"
            )
        if not 0 < self.halvings <= blocks["discriminator"]:
            raise ValueError(
                f"halvings is {self.halvings}, expected 1 to {blocks['discriminator']}, the blocks that there are"
            )
        for times in (blocks["generator"], self.halvings):
            if self.image_size % 2**times:
                raise ValueError(f"an image of {self.image_size} pixels is not halved evenly {times} times")
        for side, after in (("generator", self.generator_attention), ("discriminator", self.discriminator_attention)):
            for n in after:
                if not 0 <= n < blocks[side]:
                    raise ValueError(f"{side}_attention names block {n}, expected 0 to {blocks[side] - 1}")
        check_quantization(self, blocks["discriminator"])


class GeneratorBlock(nn.Module):
    """(B, inputs, n, n) and a condition → (B, outputs, 2n, 2n): shortcut(x) + F(x), both enlarged by repetition.

    `norm(channels)` makes a conditional norm.
    """

    def __init__(self, inputs: int, outputs: int, norm: Callable[[int], ConditionalBatchNorm2d], *, eps: float):
        super().__init__()
        self.norm1 = norm(inputs)
        self.conv1 = SpectralConv2d(inputs, outputs, 3, bias=True, eps=eps)
        self.norm2 = norm(outputs)
        self.conv2 = SpectralConv2d(outputs, outputs, 3, bias=True, eps=eps)
        self.shortcut = SpectralConv2d(inputs, outputs, 1, bias=True, eps=eps)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        out = self.conv1(enlarge(F.relu(self.norm1(x, condition))))
        out = self.conv2(F.relu(self.norm2(out, condition)))
        return enlarge(self.shortcut(x)) + out  # a 1x1 convolution costs a quarter before it is enlarged


def enlarge(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0)


class DiscriminatorBlock(nn.Module):
    """(B, inputs, n, n) → (B, outputs, m, m): shortcut(x) + F(x), both averaged over 2 x 2 where it `halves`.

    The `first` block is given images: no ReLU comes before its first convolution.
    """

    def __init__(self, inputs: int, outputs: int, *, first: bool, halves: bool, eps: float):
        super().__init__()
        self.first = first
        self.conv1 = SpectralConv2d(inputs, outputs, 3, bias=True, eps=eps)
        self.conv2 = SpectralConv2d(outputs, outputs, 3, bias=True, eps=eps)
        self.shrink: nn.Module = nn.AvgPool2d(2) if halves else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if halves or inputs != outputs:
            self.shortcut = SpectralConv2d(inputs, outputs, 1, bias=True, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(x if self.first else F.relu(x))
        out = self.shrink(self.conv2(F.relu(out)))
        return self.shortcut(self.shrink(x)) + out  # whichever of the two is first, a mean passes a 1x1 convolution


def attention_after(blocks: Sequence[int], widths: Sequence[int], eps: float) -> nn.ModuleList:
    """What follows each block, given the channels that it gives: attention after the `blocks` of these numbers."""
    conv1x1 = partial(SpectralConv2d, kernel=1, bias=False, eps=eps)
    return nn.ModuleList(
        MapAttention(width, conv1x1) if n in blocks else nn.Identity() for n, width in enumerate(widths)
    )


class ProjectionDiscriminator(nn.Module):
    """Images (B, C, S, S) and labels (B,) → scores (B,): a score of the features, and how much they are of the class.

    Features are the sums of all last maps; the projection is their product with the embedding of the class.
    """

    def __init__(self, c: BlocksConfig, *, eps: float):
        super().__init__()
        self.config = c
        widths = c.discriminator_widths
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(inputs, outputs, first=n == 0, halves=n < c.halvings, eps=eps)
            for n, (inputs, outputs) in enumerate(pairwise((c.in_channels, *widths)))
        )
        self.quantizers = Quantizers(c, widths)
        self.attention = attention_after(c.discriminator_attention, widths, eps)
        self.score = SpectralLinear(widths[-1], 1, bias=True, eps=eps)
        self.class_embedding = SpectralEmbedding(c.num_classes, widths[-1], eps=eps)

    def forward(
        self, images: Tensor, labels: Tensor | None = None, heard: list[QuantizedFeatures] | None = None
    ) -> Tensor:
        check_images(images, self.config.in_channels, (self.config.image_size, self.config.image_size))
        check_labels(labels, images.shape[0], self.config.num_classes)
        x = images
        for n, (block, attention) in enumerate(zip(self.blocks, self.attention, strict=True)):
            x = attention(self.quantizers.after(n, block(x), heard))
        features = F.relu(x).sum((2, 3))
        scores: Tensor = self.score(features).flatten() + (self.class_embedding(labels) * features).sum(1)
        return scores


def initialise_weights(model: nn.Module, draw: Callable[[Tensor], Tensor]) -> None:
    """Weights of all convolutions, linear layers and tables, drawn in place; biases start as torch has them."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding) and not module.weight.is_meta:
            draw(module.weight)


# The modules of both landmarks and what ajbrock/BigGAN-PyTorch calls them, whose files G.pth and D.pth (and G_ema.pth)
# hold one network each; attention has its gain beside its modules.
_BLOCKS = (("shortcut", "conv_sc"), ("norm{}", "bn{}"), ("conv{}", "conv{}"))
_MODULES = {
    "generator": {
        "class_embedding": "shared", "project": "linear", "norm": "output_layer.0", "to_image": "output_layer.2",
    },
    "discriminator": {"score": "linear", "class_embedding": "embed"},
}  # fmt: skip
_LEAVES = (("u", "u0"), ("sigma", "sv0"), ("running_mean", "stored_mean"), ("running_var", "stored_var"))


_DICTIONARY = {"codebook": "embed", "counts": "cluster_size", "sums": "embed_avg"}  # of FQ-GAN, codes in columns


def ajbrock_names(config: BlocksConfig) -> list[Rule | tuple[str, str]]:
    """The names of ajbrock/BigGAN-PyTorch, and of YangNaruto/FQ-GAN, where a dictionary comes before attention."""
    rows: list[Rule | tuple[str, str]] = [("generator.norm.weight", "generator.output_layer.0.gain")]
    for n in config.quantize:
        ours, theirs = f"discriminator.quantizers.{n}", f"discriminator.blocks.{n}"
        rows += [Rule(f"{ours}.{one}", (f"{theirs}.1.{other}",), torch.t, lambda t: (t.t(),))
                 for one, other in _DICTIONARY.items()]  # fmt: skip
        rows.append(Rule(f"{ours}.restart.idle", (), partial(all_idle, config.codes), lambda _: ()))  # not in files
        attention = f"discriminator.attention.{n}"
        rows.append((f"{attention}.gamma", f"{theirs}.2.gamma"))
        rows += [(f"{attention}.{{}}.{leaf}", f"{theirs}.2.{{}}.{name}") for leaf, name in (*_LEAVES, ("{}", "{}"))]
    for side, modules in _MODULES.items():
        rows.append((f"{side}.attention.{{}}.gamma", f"{side}.blocks.{{}}.1.gamma"))
        pairs = [(f"blocks.{{}}.{ours}", f"blocks.{{}}.0.{theirs}") for ours, theirs in _BLOCKS]
        for ours, theirs in [*modules.items(), *pairs, ("attention.{}.{}", "blocks.{}.1.{}")]:
            rows += [(f"{side}.{ours}.{leaf}", f"{side}.{theirs}.{name}") for leaf, name in (*_LEAVES, ("{}", "{}"))]
    return rows
