"""The semantic head of Panoptic FPN (Kirillov et al. 2019, arXiv:1901.02446, section 3.1, figure 3)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class SemanticHead(nn.Module):
    """Levels of a pyramid, finest first, (B, inputs, H, W) each, to one map (B, width, H, W) of the finest's size.

    A level is brought there by as many stages as its stride is halvings away, at least by one: a 3x3 convolution, a
    group norm, a ReLU, and an enlargement by two where it is away. All are added up. Every level is as much smaller
    than the finest as its stride says.
    """

    def __init__(self, inputs: int, strides: Sequence[int], width: int, groups: int):
        super().__init__()
        self.branches = nn.ModuleList()
        for stride in strides:
            halvings = (stride // strides[0]).bit_length() - 1
            branch = nn.Sequential()
            for stage in range(max(1, halvings)):
                branch.append(nn.Conv2d(width if stage else inputs, width, 3, padding=1, bias=False))
                branch.append(nn.GroupNorm(groups, width))
                branch.append(nn.ReLU(inplace=True))
                if halvings:
                    branch.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            self.branches.append(branch)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        first, *others = (branch(level) for branch, level in zip(self.branches, levels, strict=True))
        return sum(others, first)  # type: ignore[no-any-return]
