"""FPT's grounding transformer: what a coarse level knows, given to the pixels of a finer one that are alike to it.

Zhang et al. 2020 (arXiv:2007.09451), section 3.3: queries of the fine map, keys and values of the coarse one.
"""

from __future__ import annotations

from torch import Tensor, nn

from orchard.nn.local_interaction import LocalMixture, StandAloneAttention, StemAttention
from orchard.nn.non_local import (
    AveragedConcatenation,
    AveragedDotProduct,
    MixtureOfSoftmaxes,
    dot_product,
    negative_squared_distance,
)


class GroundingTransformer(nn.Module):
    """A fine map (B, channels, H, W) and a coarse one (B, channels, h, w) to norm(conv(y)), (B, channels, H, W).

    The norm begins at zero, so that at the start nothing is added. `inner` are the channels inside, between which
    `interaction` goes (`nn/non_local.py`); without `project` the maps themselves are queries and keys, and `inner` is
    `channels`.
    """

    def __init__(self, channels: int, inner: int, interaction: nn.Module, *, project: bool = True):
        super().__init__()
        self.query = nn.Conv2d(channels, inner, 1) if project else nn.Identity()
        self.key = nn.Conv2d(channels, inner, 1) if project else nn.Identity()
        self.value = nn.Conv2d(channels, inner, 1)
        self.interaction = interaction
        self.output = nn.Sequential(nn.Conv2d(inner, channels, 1), nn.BatchNorm2d(channels))
        nn.init.zeros_(self.output[1].weight)  # type: ignore[arg-type]

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        y = self.interaction(self.query(fine), self.key(coarse), self.value(coarse))
        return self.output(y)  # type: ignore[no-any-return]


KINDS = ("distance", "local", "dot", "embedded", "gaussian", "concatenate", "stand_alone", "stem")


def make_grounding(kind: str, channels: int, *, parts: int, side: int) -> nn.Module:
    """What takes a fine map and a coarse one, of `channels` both, to what is added to the fine one.

    Args:
        kind: "distance" or "local", the paper's: a mixture of softmaxes over the whole map, or over squares of it;
            "dot" (which the released neck has), "embedded", "gaussian", "concatenate": released, over the whole map;
            "stand_alone", "stem": released, over squares.
        channels: of both maps.
        parts: softmaxes that are mixed, of the paper's kinds.
        side: cells of a square a side; local kinds take maps of one size.

    Raises ValueError for another kind.
    """
    inner = channels // 2
    match kind:
        case "distance":
            mixture = MixtureOfSoftmaxes(inner, parts, negative_squared_distance, mean_of="keys")
            return GroundingTransformer(channels, inner, mixture)
        case "local":
            return GroundingTransformer(channels, inner, LocalMixture(inner, parts, side))
        case "dot":
            return GroundingTransformer(channels, inner, AveragedDotProduct())
        case "embedded":
            return GroundingTransformer(channels, inner, MixtureOfSoftmaxes(inner, 1, dot_product, mean_of="keys"))
        case "gaussian":
            softmax = MixtureOfSoftmaxes(channels, 1, dot_product, mean_of="keys")
            return GroundingTransformer(channels, channels, softmax, project=False)
        case "concatenate":
            return GroundingTransformer(channels, inner, AveragedConcatenation(inner))
        case "stand_alone":
            return StandAloneAttention(channels, channels, side)
        case "stem":
            return StemAttention(channels, channels, side)
    raise ValueError(f"grounding is one of {', '.join(KINDS)}, got {kind!r}")
