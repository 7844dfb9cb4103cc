"""The channel shuffle: groups of channels that exchange members (Zhang et al. 2017, arXiv:1707.01083, section 3.1)."""

from __future__ import annotations

from torch import Tensor


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Deal the channels of (B, C, H, W), which lie in `groups` runs, out in turn: the first of each, the second, ...

    Channel i of run g goes to position i * groups + g. The inverse is a shuffle with C / groups in place of `groups`.
    """
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)  # type: ignore[no-untyped-call]
