"""What a Q network learns from: temporal-difference targets and how far it is from them (Mnih et al. 2015, methods).

The target of (s, a, r, s') is r + discount · V(s'). The discount is γ, and zero where s' is terminal: nothing comes
after it, so it is worth nothing. With n-step returns r is the discounted sum of n rewards, and the discount is γⁿ.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NextValues = Callable[[nn.Module, nn.Module, Tensor], Tensor]  # (network, target network, next observations) → (B,)


def greatest_value(network: nn.Module, target: nn.Module, observations: Tensor) -> Tensor:
    """max over a of Q'(s, a), (B,), by the target network (Mnih et al. 2015, algorithm 1)."""
    greatest: Tensor = target(observations).amax(1)
    return greatest


def double_value(network: nn.Module, target: nn.Module, observations: Tensor) -> Tensor:
    """Q'(s, argmax over a of Q(s, a)), (B,): one network chooses, the other says what the choice is worth.

    A maximum over noisy values is too large on average, and this is not (van Hasselt et al. 2015, arXiv:1509.06461,
    equation 4).
    """
    chosen = network(observations).argmax(1, keepdim=True)
    return target(observations).gather(1, chosen).squeeze(1)


@torch.no_grad()
def td_targets(rewards: Tensor, discounts: Tensor, next_values: Tensor) -> Tensor:
    """r + discount · V(s'), all (B,); no gradient passes through."""
    return rewards + discounts * next_values


def values_of(q_values: Tensor, actions: Tensor) -> Tensor:
    """Q of the actions that were taken: (B, actions) and (B,) int64 → (B,)."""
    return q_values.gather(1, actions[:, None]).squeeze(1)


def squared_error(values: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean of δ² (Mnih et al. 2013, equation 2), each times its weight where there are weights (B,)."""
    if weights is None:
        return F.mse_loss(values, targets)
    return (weights * F.mse_loss(values, targets, reduction="none")).mean()


def clipped_error(values: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Huber's loss of width 1, the mean of δ² / 2 within ±1 and of |δ| - 1/2 outside.

    Its gradient is δ clipped to ±1, which is how the paper says it (Mnih et al. 2015, "Training algorithm").
    """
    if weights is None:
        return F.huber_loss(values, targets)
    return (weights * F.huber_loss(values, targets, reduction="none")).mean()
