"""How often an agent tries something else than what it thinks best."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.counter_rng import uniforms
from orchard.tasks.reinforcement_learning.settings import ReinforcementSettings


def epsilon_at(step: int, start: float, end: float, steps: int) -> float:
    """The share of random actions at a step: from `start` to `end` on a line, over `steps` steps."""
    return max(end, start + (end - start) * step / steps) if start > end else end


def epsilon_of(settings: ReinforcementSettings, taken: int) -> float:
    """The share after `taken` steps of the agent, which stays what it is until the first update."""
    s = settings
    return epsilon_at(max(taken - s.learning_starts, 0), s.epsilon_start, s.epsilon_end, s.epsilon_steps)


@torch.no_grad()
def q_values(network: nn.Module, observations: np.ndarray) -> Tensor:
    """Values of all actions, (N, actions) on the CPU, of observations (N, ...)."""
    device = next(network.parameters()).device
    values: Tensor = network(torch.from_numpy(observations).to(device)).float().cpu()
    return values


def best_actions(values: Tensor) -> np.ndarray:
    """(N, actions) → (N,) int64; of equals the first."""
    best: np.ndarray = values.argmax(1).numpy()
    return best


def explore(network: nn.Module, observations: np.ndarray, epsilon: float, seed: int, step: int) -> np.ndarray:
    """The best action for each observation, (N,) int64, or with probability `epsilon` any.

    Which it is, is a function of `seed` and `step`. The network is not asked where all are random.
    """
    config: Any = network.config
    count = len(observations)
    draws = uniforms(seed, step, np.arange(count), 2)
    chosen: np.ndarray = (draws[:, 1] * config.actions).astype(np.int64)
    greedy = draws[:, 0] >= epsilon
    if greedy.any():
        chosen = np.where(greedy, best_actions(q_values(network, observations)), chosen)
    return chosen
