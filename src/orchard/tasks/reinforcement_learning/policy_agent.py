"""An agent with a policy: actions drawn from it, or the likeliest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from orchard.data.counter_rng import COLUMNS, uniforms
from orchard.data.environments import Environments
from orchard.tasks.reinforcement_learning.acting import Choice

WORTH = "value of the state"
EPISODE = 2**32  # steps that draws of an episode have numbers for


@torch.no_grad()
def decide(network: nn.Module, observations: np.ndarray, memory: torch.Tensor | None) -> Any:
    """What the network says of observations (N, ...), on the CPU. `memory` (N, units) is None without one."""
    value: Any = network.value
    seen = torch.from_numpy(observations).to(value.weight.device)
    decision = network(seen) if memory is None else network(seen, memory)
    parts = {name: part if part is None else part.detach().float().cpu() for name, part in vars(decision).items()}
    return type(decision)(**parts)


def likeliest(decision: Any) -> np.ndarray:
    """The likeliest action of each observation: (N,) int64, or (N, A) float32."""
    policy = decision.policy.numpy()
    actions: np.ndarray = policy.argmax(1) if decision.log_std is None else policy
    return actions


def draw(decision: Any, chances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Actions as `likeliest` has them, drawn from the policy by uniform numbers (N, A or more), and the logarithms of
    their probabilities (N,) float32."""
    policy = decision.policy.numpy()
    if decision.log_std is None:
        sums = np.exp(policy).cumsum(1)
        actions = (chances[:, :1] * sums[:, -1:] >= sums).sum(1).clip(max=policy.shape[1] - 1)
        return actions, policy[np.arange(len(actions)), actions]
    log_std = decision.log_std.numpy()
    normal = torch.special.ndtri(torch.from_numpy(chances[:, : policy.shape[1]] + 2.0**-54)).numpy().astype(np.float32)
    log_probabilities = (-0.5 * normal**2 - log_std - 0.5 * math.log(2 * math.pi)).sum(1)
    return policy + np.exp(log_std) * normal, log_probabilities.astype(np.float32)


def columns_of(network: Any) -> int:
    """How many uniform numbers a step of one agent takes."""
    return min(network.config.actions, COLUMNS) if network.config.continuous else 1


class PolicyAgent:
    """Plays in `count` environments, greedily or, `sampled`, by chance: a function of seed, episode and step."""

    def __init__(self, network: Any, count: int, sampled: bool):
        self.network, self.sampled = network, sampled
        self.memory = network.begin(count) if network.memory is not None else None

    def choose(self, envs: Environments) -> Choice:
        decision = decide(self.network, envs.observations, self.memory)
        if self.memory is not None:
            self.memory = decision.memory.to(self.memory.device)
        actions = likeliest(decision)
        if self.sampled:
            pairs = zip(envs.numbers, envs.played, strict=True)
            steps = np.array([number * EPISODE + len(played) for number, played in pairs])
            actions, _ = draw(decision, uniforms(envs.seed, 0, steps, columns_of(self.network)))
        return Choice(actions, {WORTH: decision.values.numpy()})

    def forget(self, ended: np.ndarray) -> None:
        if self.memory is not None:
            self.memory[torch.from_numpy(ended)] = 0
