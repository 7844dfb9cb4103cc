"""What stands between a detector's trunk and its heads: a feature pyramid, or a feature pyramid transformer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from orchard.nn.feature_pyramid import FeaturePyramid, pyramid_convolution
from orchard.nn.feature_pyramid_transformer import FeaturePyramidTransformer

NECKS = ("fpn", "fpt")


class TransformedPyramid(nn.Module):
    """Maps of a trunk, finest first, (B, channels, H, W) each, to as many of one width and one more, as a feature
    pyramid gives.

    As in the released code the transformer's levels are 1x1 convolutions of the trunk's maps, without a path from the
    coarser ones. There are two softmaxes in a self-transformer and four in a grounding one (arXiv:2007.09451, section
    3.5).
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], width: int, norm: Callable[[int], nn.Module] | None,
        grounding: str = "distance",
    ):  # fmt: skip
        super().__init__()
        self.lateral = nn.ModuleList(pyramid_convolution(inputs, width, 1, norm) for inputs in channels)
        self.transformer = FeaturePyramidTransformer(
            width, strides, norm, self_parts=2, grounding=grounding, grounding_parts=4
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        levels: list[Tensor] = self.transformer(self.levels(maps))
        return [*levels, levels[-1][:, :, ::2, ::2]]

    def levels(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """What the transformer is given."""
        return [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]


def make_neck(
    kind: str, channels: Sequence[int], strides: Sequence[int], width: int, norm: Callable[[int], nn.Module] | None
) -> nn.Module:
    """The neck of one of `NECKS` on maps of these channels and strides."""
    if kind == "fpt":
        return TransformedPyramid(channels, strides, width, norm)
    return FeaturePyramid(channels, width, norm)
