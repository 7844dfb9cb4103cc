"""Stochastic depth: in training a sample skips a residual branch now and then (Huang et al. 2016, arXiv:1603.09382)."""

from __future__ import annotations

from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """(B, ...) → the same shape: in training each sample is 0 with probability `p`, and else divided by 1 - p.

    The expected value of a branch then stays, and nothing is left to do in evaluation. Raises ValueError for a `p`
    outside of [0, 1).
    """

    def __init__(self, p: float):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"the probability of skipping a branch is at least 0 and below 1, got {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        kept = x.new_empty((len(x),) + (1,) * (x.ndim - 1)).bernoulli_(1 - self.p)
        return x * (kept / (1 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"
