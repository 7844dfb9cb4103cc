"""Advantages: how much better a step turned out than the critic had thought."""

from __future__ import annotations

import numpy as np


def generalised_advantages(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    terminal: np.ndarray,
    ended: np.ndarray,
    *,
    gamma: float,
    decay: float,
) -> np.ndarray:
    """Σ (γλ)ᵏ δ of the steps from each on to the end of its episode (Schulman et al. 2015, arXiv:1506.02438,
    equation 16), where δ = r + γ V(s') - V(s).

    Args:
        rewards: (T, N), as all others, of N environments in order of time.
        values: what the critic thought of each state.
        next_values: what it thought of the state after it, which begins no other episode.
        terminal: nothing comes after the step, so that the state after it is worth nothing.
        ended: no step comes after it in the same episode: it is terminal or its time was over.
        gamma: γ, the discount.
        decay: λ; 1 gives the discounted return less the value.
    """
    errors = rewards + gamma * next_values * ~terminal - values
    advantages = np.zeros_like(errors)
    after = np.zeros_like(errors[0])
    for step in range(len(errors) - 1, -1, -1):
        after = errors[step] + gamma * decay * after * ~ended[step]
        advantages[step] = after
    return advantages
