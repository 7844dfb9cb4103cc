"""Q-learning: the loss of a batch of transitions, and what is measured of episodes (Mnih et al. 2015, algorithm 1)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.environments import Episode
from orchard.tasks.reinforcement_learning.exploration import epsilon_at
from orchard.tasks.reinforcement_learning.losses import (
    NextValues,
    clipped_error,
    double_value,
    greatest_value,
    squared_error,
    td_targets,
    values_of,
)
from orchard.tasks.reinforcement_learning.replay import Transitions
from orchard.tasks.reinforcement_learning.settings import ReinforcementSettings
from orchard.training.learner import Learner
from orchard.training.phases import Phase

NEXT_VALUES: dict[str, NextValues] = {"greatest": greatest_value, "double": double_value}
ERRORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"huber": clipped_error, "squared": squared_error}


class QLearner(Learner):
    """A Q network and its target network, a copy that is renewed every `target_every` updates."""

    def __init__(self, network: nn.Module, target_every: int):
        super().__init__()
        self.network = network
        self.target = copy.deepcopy(network).requires_grad_(False)
        self.target_every = target_every

    def after_step(self, step: int) -> None:
        if step % self.target_every == 0:
            self.target.load_state_dict(self.network.state_dict())

    def layer_groups(self) -> list[tuple[str, ...]]:
        network: Any = self.network
        return [tuple(f"network.{name}" for name in group) for group in network.layer_groups()]


class QLearning:
    """The loss and the metrics of a `QLearner`. `lately()` tells how the agent fares while it learns."""

    logged: Sequence[str] = ("mean_return", "mean_length", "training_return", "q_value", "td_error", "epsilon")

    def __init__(self, settings: ReinforcementSettings, lately: Callable[[], float]):
        self.settings, self.lately = settings, lately
        self.next_value, self.error = NEXT_VALUES[settings.next_value], ERRORS[settings.error]
        self.phases = (Phase("", self.loss, ("network.",)),)

    def epsilon(self, taken: int) -> float:
        """The share of random actions after so many steps of the agent; it falls from the first update on."""
        s = self.settings
        return epsilon_at(max(taken - s.learning_starts, 0), s.epsilon_start, s.epsilon_end, s.epsilon_steps)

    def loss(self, learner: Any, batch: Transitions, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The mean error of the values of the actions that were taken."""
        values = values_of(learner.network(batch.observations), batch.actions).float()
        with torch.no_grad():
            next_values = self.next_value(learner.network, learner.target, batch.next_observations).float()
        targets = td_targets(batch.rewards, batch.discounts, next_values)
        figures = {
            "q_value": values.detach().mean(),
            "td_error": (targets - values.detach()).abs().mean(),
            "epsilon": torch.tensor(self.epsilon(self.settings.learning_starts + step * self.settings.train_every)),
            "training_return": torch.tensor(self.lately()),
        }
        return self.error(values, targets), figures


def compute_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Mean and standard deviation of the return, not discounted, and the mean length."""
    returns = np.array([episode.score for episode in episodes])
    return {
        "mean_return": float(returns.mean()),
        "return_std": float(returns.std()),
        "mean_length": float(np.mean([episode.length for episode in episodes])),
    }
