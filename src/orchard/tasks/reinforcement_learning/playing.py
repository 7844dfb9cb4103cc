"""An agent in its environments: how it chooses, and whole episodes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.counter_rng import uniforms
from orchard.data.environments import Environments, Episode

SIDE_BY_SIDE = 20  # environments in which episodes are played: one pass of the network chooses for all of them


@torch.no_grad()
def q_values(network: nn.Module, observations: np.ndarray) -> Tensor:
    """Values of all actions, (N, actions) on the CPU, of observations (N, ...)."""
    device = next(network.parameters()).device
    values: Tensor = network(torch.from_numpy(observations).to(device)).float().cpu()
    return values


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


def best_actions(values: Tensor) -> np.ndarray:
    """(N, actions) → (N,) int64; of equals the first."""
    best: np.ndarray = values.argmax(1).numpy()
    return best


def play(network: nn.Module, source: str, episodes: int, seed: int) -> list[Episode]:
    """The episodes 0 .. episodes - 1, played greedily: the same ones however many are asked for."""
    envs = Environments(source, min(episodes, SIDE_BY_SIDE), seed)
    played: dict[int, Episode] = {}
    while not all(number in played for number in range(episodes)):
        actions = best_actions(q_values(network, envs.observations))
        played |= {episode.number: episode for episode in envs.step(actions).finished}
    envs.close()
    return [played[number] for number in range(episodes)]
