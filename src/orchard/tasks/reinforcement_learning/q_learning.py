"""Q-learning: a network that values actions learns from a replay buffer (Mnih et al. 2015, algorithm 1)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.environments import Environments
from orchard.data.open_environment import EnvironmentData
from orchard.errors import UsageError
from orchard.tasks.reinforcement_learning.acting import Choice
from orchard.tasks.reinforcement_learning.exploration import best_actions, epsilon_at, q_values
from orchard.tasks.reinforcement_learning.families import Training
from orchard.tasks.reinforcement_learning.learner import AgentLearner
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
from orchard.tasks.reinforcement_learning.replay_feed import ReplayFeed
from orchard.tasks.reinforcement_learning.settings import ReinforcementSettings, Settings
from orchard.training.phases import Phase

NEXT_VALUES: dict[str, NextValues] = {"greatest": greatest_value, "double": double_value}
ERRORS: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "huber": clipped_error,
    "squared": squared_error,
}

NEEDS = "values of numbered actions (DQN)"
CURVES = (
    ("Q values", "q_value", "mean of what is learned from"),
    ("Temporal difference", "td_error", "mean size"),
    ("Epsilon", "epsilon", "share of random actions"),
)


class QLearner(AgentLearner):
    """A Q network and its target network, a copy that is renewed every `target_every` updates."""

    def __init__(self, network: nn.Module, target_every: int):
        super().__init__(network)
        self.target = copy.deepcopy(network).requires_grad_(False)
        self.target_every = target_every

    def after_step(self, step: int) -> None:
        if step % self.target_every == 0:
            self.target.load_state_dict(self.network.state_dict())


class QLearning:
    """The loss and the metrics of a `QLearner`. `lately()` tells how the agent fares while it learns, `surprised` is
    told the temporal differences of a batch."""

    logged: Sequence[str] = ("mean_return", "mean_length", "training_return", "q_value", "td_error", "epsilon")

    def __init__(
        self, settings: ReinforcementSettings, lately: Callable[[], float],
        surprised: Callable[[Transitions, Tensor], None] = lambda batch, errors: None,
    ):  # fmt: skip
        self.settings, self.lately, self.surprised = settings, lately, surprised
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
        errors = (targets - values.detach()).abs()
        self.surprised(batch, errors)
        figures = {
            "q_value": values.detach().mean(),
            "td_error": errors.mean(),
            "epsilon": torch.tensor(self.epsilon(self.settings.learning_starts + step * self.settings.train_every)),
            "training_return": torch.tensor(self.lately()),
        }
        return self.error(values, targets, batch.weights if self.settings.priority_alpha else None), figures


class QAgent:
    """Takes the action of the greatest value."""

    def __init__(self, network: nn.Module):
        self.network = network

    def choose(self, envs: Environments) -> Choice:
        values = q_values(self.network, envs.observations)
        found = values.numpy()
        return Choice(best_actions(values), {"greatest": found.max(1), "mean of all actions": found.mean(1)})

    def forget(self, ended: np.ndarray) -> None:
        """It remembers nothing."""


def suits(network: nn.Module) -> bool:
    return hasattr(network.config, "actions") and not hasattr(network, "policy")


def start(network: nn.Module, data: EnvironmentData, settings: Settings) -> Training:
    if data.continuous:
        raise UsageError(
            f"{settings.model} chooses among numbered actions; {data.source} takes {data.actions} real numbers: train "
            "an actor-critic, such as ppo_continuous"
        )
    r = settings.reinforcement
    learner = QLearner(network, max(r.target_every // r.train_every, 1))
    feed = ReplayFeed(network, data, settings)
    return Training(learner, feed, QLearning(r, feed.lately, feed.surprised))


def agent(network: nn.Module, count: int, sampled: bool) -> QAgent:
    return QAgent(network)
