"""An agent that acts while it learns: batches out of a replay buffer that its own steps fill."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.environments import Environments
from orchard.data.open_environment import EnvironmentData
from orchard.tasks.reinforcement_learning.exploration import epsilon_of
from orchard.tasks.reinforcement_learning.playing import explore
from orchard.tasks.reinforcement_learning.replay import ReplayBuffer, Transitions
from orchard.tasks.reinforcement_learning.settings import Settings
from orchard.training.feed import Feed

LATELY = 100  # episodes over which the return is averaged while the agent learns


class EnvironmentFeed(Feed):
    """Before batch n, `network` takes steps in its environments until they are `learning_starts` + n `train_every`.

    An action depends on the network as it stands, the seed and the number of steps before it; what comes of it on the
    number of the episode. So the state is the replay buffer, where each episode stands, and the number of steps.
    """

    def __init__(self, network: nn.Module, data: EnvironmentData, settings: Settings):
        self.network, self.data, self.settings = network, data, settings.reinforcement
        self.batch_size, self.accumulate = settings.batch_size, settings.accumulate
        episodes, self.exploring, self.drawing = np.random.SeedSequence(settings.seed).generate_state(3).tolist()
        self.envs = Environments(data.source, self.settings.environments, episodes)
        self.replay = ReplayBuffer(
            self.settings.replay_capacity, data.observation, self.envs.observations.dtype, frames=data.frames,
            environments=self.settings.environments,
        )  # fmt: skip
        self.taken = 0
        self.scores: deque[float] = deque(maxlen=LATELY)  # of the last episodes
        self.remark = ""  # what a person should know of a resumed training
        self.batches_per_epoch = max(self.settings.evaluate_every // self.settings.train_every, 1)

    def batches(self, start: int) -> Iterator[list[Transitions]]:
        number = start
        while True:
            self._act(self.settings.learning_starts + number * self.settings.train_every)
            drawn = self.replay.sample(
                self.batch_size, self.drawing, number, gamma=self.settings.gamma, n_step=self.settings.n_step
            )
            yield self._ready(drawn)
            number += 1

    def example(self) -> Transitions:
        """A batch of what is seen now, so that a step can be tried before the agent has lived."""
        count, seen = self.batch_size, torch.from_numpy(self.envs.observations[:1])
        observations, zeros = seen.expand(count, *seen.shape[1:]), torch.zeros(count)
        return self._ready(Transitions(observations, zeros.long(), zeros, zeros, observations))[0]

    def _ready(self, batch: Transitions) -> list[Transitions]:
        return batch.to(next(self.network.parameters()).device).parts(self.accumulate)

    def _act(self, until: int) -> None:
        """Take steps until there are so many."""
        while self.taken < until:
            seen = self.envs.observations
            actions = explore(self.network, seen, epsilon_of(self.settings, self.taken), self.exploring, self.taken)
            made = self.envs.step(actions)
            rewards = made.rewards.clip(-1, 1) if self.settings.clip_rewards else made.rewards
            terminal = made.terminated | made.lives_lost if self.settings.lives_end_episodes else made.terminated
            self.replay.add(seen, actions, rewards, terminal, made.ended, made.observations)
            self.scores.extend(episode.score for episode in made.finished)
            self.taken += len(seen)

    def lately(self) -> float:
        """The mean return of the last episodes, exploring as the agent does; of unfinished ones where none is over."""
        return float(np.mean(self.scores or self.envs.scores))

    def name_records(self, batch: Transitions) -> str:
        return (
            f"{len(batch)} of the last {min(self.taken, self.settings.replay_capacity):,} steps in {self.data.source}"
        )

    def state(self) -> Mapping[str, Tensor]:
        parts = {"replay": self.replay.state(), "environments": self.envs.state()}
        state = {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
        scores = torch.tensor(list(self.scores), dtype=torch.float64)
        return {**state, "scores": scores, "taken": torch.tensor(self.taken)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}

        self.replay.load(part("replay."))
        self.scores.extend(state["scores"].tolist())
        self.taken = int(state["taken"])
        self.envs.load(part("environments."), self._remember)

    def _remember(self, line: str) -> None:
        self.remark = line
