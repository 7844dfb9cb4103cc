"""What is measured of episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchard.data.environments import Episode


def compute_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Mean and standard deviation of the return, not discounted, and the mean length."""
    returns = np.array([episode.score for episode in episodes])
    return {
        "mean_return": float(returns.mean()),
        "return_std": float(returns.std()),
        "mean_length": float(np.mean([episode.length for episode in episodes])),
    }
