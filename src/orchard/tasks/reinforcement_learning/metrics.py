"""What is measured of episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchard.data.environments import Episode

# Returns of random play and of a person, as published (Wang et al. 2015, arXiv:1511.06581, table 2).
PUBLISHED = {"gym:ALE/Pong-v5": (-20.7, 14.6)}


def compute_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Mean and standard deviation of the return, not discounted, and the mean length."""
    returns = np.array([episode.score for episode in episodes])
    return {
        "mean_return": float(returns.mean()),
        "return_std": float(returns.std()),
        "mean_length": float(np.mean([episode.length for episode in episodes])),
    }


def spread_of(episodes: Sequence[Episode], source: str) -> dict[str, float]:
    """What an evaluation says beside `compute_metrics`: the standard error of the mean, the lowest and the highest
    return, and where random play and a person's are published, the mean on a scale from 0 to 1 between the two."""
    returns = np.array([episode.score for episode in episodes])
    found = {
        "return_error": float(returns.std(ddof=1) / np.sqrt(len(returns))) if len(returns) > 1 else 0.0,
        "lowest_return": float(returns.min()),
        "highest_return": float(returns.max()),
    }
    if source in PUBLISHED:
        random, human = PUBLISHED[source]
        found["human_normalised"] = float((returns.mean() - random) / (human - random))
    return found
