"""Colours as classes: 313 places on the a and b axes of Lab (Zhang et al. 2016, arXiv:1603.08511, section 2.1)."""

from __future__ import annotations

import torch
from torch import Tensor

STEP = 10
# Of each a from -90 on, the first and the last b: squares of 10 that sRGB reaches, as the authors released them.
ROWS = (
    (50, 90), (20, 90), (0, 90), (-20, 90), (-30, 100), (-40, 100), (-50, 100), (-50, 100), (-60, 100), (-70, 100),
    (-80, 90), (-80, 90), (-90, 90), (-100, 90), (-100, 80), (-110, 80), (-110, 80), (-110, 70), (-110, 70), (-90, 0),
)  # fmt: skip
FIRST = -90
NEIGHBOURS, SIGMA = 10, 5.0  # of soft encoding; the paper says five neighbours, its code has ten
MIX = 0.5  # of the uniform distribution in the weights of classes


def colour_bins() -> Tensor:
    """(313, 2) float32, a and b of every class."""
    return torch.tensor(
        [(FIRST + STEP * n, b) for n, (low, high) in enumerate(ROWS) for b in range(low, high + 1, STEP)],
        dtype=torch.float32,
    )


def encode(ab: Tensor, bins: Tensor) -> Tensor:
    """(N, 2) to the weights of all bins (N, Q): Gaussian ones of the nearest ten, which sum to one."""
    distances, nearest = torch.cdist(ab, bins).topk(NEIGHBOURS, largest=False)
    weights = (-distances.square() / (2 * SIGMA**2)).exp()
    return torch.zeros(len(ab), len(bins), device=ab.device).scatter_(
        1, nearest, weights / weights.sum(1, keepdim=True)
    )  # fmt: skip


def annealed_mean(logits: Tensor, bins: Tensor, temperature: float) -> Tensor:
    """(B, Q, H, W) → (B, 2, H, W): the mean of the bins' colours by probabilities sharpened by the temperature, which
    at 1 is the mean, towards 0 the likeliest colour (equation 5)."""
    shares = (logits / temperature).softmax(1)
    return torch.einsum("bqhw,qc->bchw", shares, bins)


def class_weights(prior: Tensor, mix: float = MIX) -> Tensor:
    """(Q,) by how often each bin comes, which sums to one: rare colours weigh more, and the mean over pixels is one
    (equation 4)."""
    weights = 1 / ((1 - mix) * prior + mix / len(prior))
    return weights / (prior * weights).sum()


def smoothed(prior: Tensor, bins: Tensor) -> Tensor:
    """The shares of bins (Q,), spread over the neighbours by the Gaussian of soft encoding."""
    kernel = (-torch.cdist(bins, bins).square() / (2 * SIGMA**2)).exp()
    found = (kernel / kernel.sum(0)) @ prior
    return found / found.sum()
