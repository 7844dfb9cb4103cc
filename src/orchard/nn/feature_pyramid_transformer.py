"""The feature pyramid transformer: every level sees all the others (Zhang et al. 2020, arXiv:2007.09451)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from orchard.nn.feature_pyramid import pyramid_convolution
from orchard.nn.grounding_transformer import make_grounding
from orchard.nn.rendering_transformer import RenderingTransformer
from orchard.nn.self_transformer import SelfTransformer


class FeaturePyramidTransformer(nn.Module):
    """Levels of a pyramid, finest first, (B, width, H, W) each, to as many of the same shapes (figure 2).

    A level becomes a 3x3 convolution of five maps (of four levels): what its self-transformer makes of it, what it
    renders of each finer level, the next one first, what each coarser level grounds in it, the next one first, and
    itself.

    Args:
        width: channels of every level.
        strides: pixels a side that one cell of each level stands for.
        norm: makes the norm behind the last convolutions; without one they have a bias.
        self_parts: softmaxes that self-transformers mix.
        grounding: what grounding transformers are (`make_grounding`).
        grounding_parts: softmaxes that they mix.
        side: cells of the squares of local ones.
    """

    def __init__(
        self, width: int, strides: Sequence[int], norm: Callable[[int], nn.Module] | None, *,
        self_parts: int, grounding: str, grounding_parts: int, side: int = 5,
    ):  # fmt: skip
        super().__init__()
        self.levels = levels = range(len(strides))
        self.selves = nn.ModuleList(SelfTransformer(width, parts=self_parts) for _ in levels)
        self.rendering, self.grounding = nn.ModuleDict(), nn.ModuleDict()
        for fine in levels:
            for coarse in levels[fine + 1 :]:
                self.rendering[f"{coarse}_{fine}"] = RenderingTransformer(width, strides[coarse] // strides[fine])
                self.grounding[f"{fine}_{coarse}"] = make_grounding(grounding, width, parts=grounding_parts, side=side)
        self.output = nn.ModuleList(pyramid_convolution((len(strides) + 1) * width, width, 3, norm) for _ in levels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [self.output[n](torch.cat(self.seen(maps, n), 1)) for n in self.levels]

    def seen(self, maps: Sequence[Tensor], level: int) -> list[Tensor]:
        """The maps of which the output of one level is made."""
        own = maps[level]
        rendered = [self.rendering[f"{level}_{fine}"](own, maps[fine]) for fine in reversed(self.levels[:level])]
        grounded = [self.grounding[f"{level}_{n}"](own, maps[n]) for n in self.levels[level + 1 :]]
        return [self.selves[level](own), *rendered, *grounded, own]
