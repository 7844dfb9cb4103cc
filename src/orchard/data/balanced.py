"""An order of training records in which every group comes equally often."""

from __future__ import annotations

import numpy as np

from orchard.data.counter_rng import Order, permuted

_APART = 1_000_003  # between the seeds of two groups


class BalancedOrder(Order):
    """An order in which every group of `groups` (N,) comes equally often: a small one's records several times an epoch.

    Each group is gone through in orders of its own, one after the other and from epoch to epoch, so that none of its
    records comes again before all others did. Where a record comes for the n-th time within one of them, its number is
    given as `record + n * count`, so that each time it can be varied otherwise.
    """

    def __init__(self, seed: int, groups: np.ndarray):
        super().__init__(seed, len(groups))
        self.members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
        self.turns = -(-self.count // len(self.members))  # of each group in an epoch

    def __call__(self, epoch: int, first: int, last: int) -> np.ndarray:
        """The records (last - first,) int64 that stand at the places from `first` to before `last` of an epoch."""
        turns, groups = np.divmod(super().__call__(epoch, first, last), len(self.members))
        found = np.empty(len(turns), np.int64)
        for group in np.unique(groups):
            here, members = np.flatnonzero(groups == group), self.members[group]
            passes, within = np.divmod(epoch * self.turns + turns[here], len(members))
            for number in np.unique(passes):
                now = passes == number
                order = permuted(self.seed + _APART * (int(group) + 1), int(number), within[now], len(members))
                found[here[now]] = members[order] + (int(number) - epoch * self.turns // len(members)) * self.count
        return found
