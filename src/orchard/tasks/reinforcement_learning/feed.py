"""An agent that acts while it learns: batches out of what its own steps led to."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.batches import Batch
from orchard.data.environments import Environments, Step
from orchard.data.open_environment import EnvironmentData
from orchard.tasks.reinforcement_learning.acting import view_of
from orchard.tasks.reinforcement_learning.settings import Settings
from orchard.training.feed import Feed

LATELY = 100  # episodes over which the return is averaged while the agent learns

B = TypeVar("B", bound=Batch)


class EnvironmentFeed(Feed):
    """The environments that an agent learns in, and how it has fared there lately.

    An action depends on the network as it stands, the seed and the number of steps before it; what comes of it on the
    number of the episode. So the state is where each episode stands, the number of steps, and what a subclass keeps.
    """

    def __init__(self, network: nn.Module, data: EnvironmentData, settings: Settings):
        self.network, self.data, self.settings = network, data, settings.reinforcement
        self.batch_size, self.accumulate = settings.batch_size, settings.accumulate
        episodes, self.exploring, self.drawing = np.random.SeedSequence(settings.seed).generate_state(3).tolist()
        self.envs = Environments(
            data.source, self.settings.environments, episodes, view=view_of(network),
            step_seconds=self.settings.step_seconds,
        )  # fmt: skip
        self.taken = 0
        self.scores: deque[float] = deque(maxlen=LATELY)  # of the last episodes
        self.remark = ""  # what a person should know of a resumed training

    def steps_per_epoch(self) -> int:
        """Steps of the agent in an epoch."""
        return self.settings.evaluate_every

    def _step(self, actions: np.ndarray) -> tuple[Step, np.ndarray, np.ndarray]:
        """Take a step everywhere. Returns it with the rewards (N,) and ends (N,) bool that are learned from."""
        made = self.envs.step(actions)
        rewards = made.rewards.clip(-1, 1) if self.settings.clip_rewards else made.rewards
        terminal = made.terminated | made.lives_lost if self.settings.lives_end_episodes else made.terminated
        self.scores.extend(episode.score for episode in made.finished)
        self.taken += len(made.rewards)
        return made, rewards, terminal

    def _ready(self, batch: B) -> list[B]:
        return batch.to(next(self.network.parameters()).device).parts(self.accumulate)

    def lately(self) -> float:
        """The mean return of the last episodes, exploring as the agent does; of unfinished ones where none is over."""
        return float(np.mean(self.scores or self.envs.scores))

    def state(self) -> Mapping[str, Tensor]:
        state = {f"environments.{name}": tensor for name, tensor in self.envs.state().items()}
        scores = torch.tensor(list(self.scores), dtype=torch.float64)
        return {**state, "scores": scores, "taken": torch.tensor(self.taken)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.scores.extend(state["scores"].tolist())
        self.taken = int(state["taken"])
        self.envs.load(below(state, "environments."), self._remember)

    def _remember(self, line: str) -> None:
        self.remark = line


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, by the rest of their names."""
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
