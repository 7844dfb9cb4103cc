"""Activation regularisation of recurrent language models (Merity, McCann and Socher 2017, arXiv:1708.01009)."""

from __future__ import annotations

from torch import Tensor


def activation_penalty(dropped: Tensor, raw: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha times the mean square of the last layer's outputs (B, T, n), as dropout left them, and beta times that of
    how much they change from one token to the next, without dropout."""
    penalty = alpha * dropped.square().mean()
    if raw.shape[1] > 1:
        penalty = penalty + beta * raw.diff(dim=1).square().mean()
    return penalty
