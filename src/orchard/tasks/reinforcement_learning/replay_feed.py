"""Batches out of a replay buffer that an agent's own steps fill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from orchard.data.open_environment import EnvironmentData
from orchard.tasks.reinforcement_learning.exploration import epsilon_of, explore
from orchard.tasks.reinforcement_learning.feed import EnvironmentFeed, below
from orchard.tasks.reinforcement_learning.replay import ReplayBuffer, Transitions
from orchard.tasks.reinforcement_learning.settings import Settings


class ReplayFeed(EnvironmentFeed):
    """Before batch n, `network` takes steps in its environments until they are `learning_starts` + n `train_every`."""

    def __init__(self, network: nn.Module, data: EnvironmentData, settings: Settings):
        super().__init__(network, data, settings)
        self.replay = ReplayBuffer(
            self.settings.replay_capacity, data.observation, self.envs.observations.dtype, frames=data.frames,
            environments=self.settings.environments, alpha=self.settings.priority_alpha,
        )  # fmt: skip
        self.steps = settings.epochs * self.settings.evaluate_every
        self.batches_per_epoch = max(self.settings.evaluate_every // self.settings.train_every, 1)

    def steps_per_epoch(self) -> int:
        return self.batches_per_epoch * self.settings.train_every

    def batches(self, start: int) -> Iterator[list[Transitions]]:
        number = start
        while True:
            self._act(self.settings.learning_starts + number * self.settings.train_every)
            drawn = self.replay.sample(
                self.batch_size, self.drawing, number, gamma=self.settings.gamma, n_step=self.settings.n_step,
                beta=self._beta(),
            )  # fmt: skip
            yield self._ready(drawn)
            number += 1

    def example(self) -> Transitions:
        """A batch of what is seen now, so that a step can be tried before the agent has lived."""
        count, seen = self.batch_size, torch.from_numpy(self.envs.observations[:1])
        observations, zeros = seen.expand(count, *seen.shape[1:]), torch.zeros(count)
        return self._ready(
            Transitions(observations, zeros.long(), zeros, zeros, observations, zeros + 1, zeros.long() - 1)
        )[0]

    def _beta(self) -> float:
        """How far weights make up for priorities: more and more, and wholly in the end."""
        return min(self.settings.priority_beta + (1 - self.settings.priority_beta) * self.taken / self.steps, 1.0)

    def surprised(self, batch: Transitions, errors: Tensor) -> None:
        """The temporal differences (B,) of a batch that was drawn, by which it is drawn again."""
        if self.replay.priorities is not None and batch.rows[0] >= 0:
            self.replay.priorities.update(batch.rows.cpu().numpy(), errors.cpu().numpy())

    def _act(self, until: int) -> None:
        """Take steps until there are so many."""
        while self.taken < until:
            seen = self.envs.observations
            actions = explore(self.network, seen, epsilon_of(self.settings, self.taken), self.exploring, self.taken)
            made, rewards, terminal = self._step(actions)
            self.replay.add(seen, actions, rewards, terminal, made.ended, made.observations)

    def name_records(self, batch: Transitions) -> str:
        held = min(self.taken, self.settings.replay_capacity)
        return f"{len(batch)} of the last {held:,} steps in {self.data.source}"

    def state(self) -> Mapping[str, Tensor]:
        return {**super().state(), **{f"replay.{name}": tensor for name, tensor in self.replay.state().items()}}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.replay.load(below(state, "replay."))
        super().load(state)
