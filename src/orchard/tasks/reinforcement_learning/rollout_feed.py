"""Batches of what an agent has just done, which are used a few times and thrown away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.counter_rng import permuted, uniforms
from orchard.data.open_environment import EnvironmentData
from orchard.errors import UsageError
from orchard.tasks.reinforcement_learning.feed import EnvironmentFeed, below
from orchard.tasks.reinforcement_learning.policy_agent import columns_of, decide, draw
from orchard.tasks.reinforcement_learning.rollouts import Experience, Rollout, normalised, pick_sequences, pick_steps
from orchard.tasks.reinforcement_learning.settings import Settings


class RolloutFeed(EnvironmentFeed):
    """Before the first batch of a rollout, `network` takes `rollout_steps` steps in each of its environments.

    `passes` passes over them follow, each in batches of so many steps in an order of its own; of a network with a
    memory, in batches of whole sequences. A rollout that is being learned from is in the state.
    """

    def __init__(self, network: nn.Module, data: EnvironmentData, settings: Settings):
        super().__init__(network, data, settings)
        self.policy = settings.policy
        count, length = self.settings.environments, self.policy.rollout_steps
        self.memory = network.begin(count) if network.memory is not None else None  # type: ignore[operator]
        self.size = count * length  # steps in a rollout
        self.unit = 1 if self.memory is None else length  # steps that stay together
        if self.size % self.batch_size or self.batch_size % self.unit:
            of = "" if self.unit == 1 else f", each a sequence of {length}"
            raise UsageError(
                f"batch_size is {self.batch_size}, expected to divide the {self.size} steps of a rollout "
                f"(reinforcement.environments times policy.rollout_steps){of}"
            )
        self.per_pass = self.size // self.batch_size
        self.per_rollout = self.per_pass * self.policy.passes
        self.batches_per_epoch = max(self.settings.evaluate_every // self.size, 1) * self.per_rollout
        units = 0 if self.memory is None else self.memory.shape[1]
        self.rollout = Rollout(length, self.envs.observations, self._example_actions(), units)
        self.began = np.ones(count, bool)  # a new episode begins with what is seen now
        self.experience: Experience | None = None

    def steps_per_epoch(self) -> int:
        return self.batches_per_epoch // self.per_rollout * self.size

    def batches(self, start: int) -> Iterator[list[Experience]]:
        number = start
        while True:
            rollout, place = divmod(number, self.per_rollout)
            if place == 0:
                self._act(rollout)
            yield self._ready(self._batch(rollout, place))
            number += 1

    def _batch(self, rollout: int, place: int) -> Experience:
        if self.experience is None:
            self.experience = self.rollout.experience(self.settings.gamma, self.policy)
        number, part = divmod(place, self.per_pass)
        units = self.batch_size // self.unit
        which = np.arange(part * units, (part + 1) * units)
        if self.per_pass > 1:
            which = permuted(self.drawing, rollout * self.policy.passes + number, which, self.size // self.unit)
        batch = (pick_steps if self.unit == 1 else pick_sequences)(self.experience, which)
        return normalised(batch) if self.policy.normalise_advantages else batch

    def _act(self, number: int) -> None:
        """Fill the rollout."""
        r, count, columns = self.rollout, self.settings.environments, columns_of(self.network)
        chances = uniforms(self.exploring, number, np.arange(self.size), columns).reshape(-1, count, columns)
        if self.memory is not None:
            r.memory[:] = self.memory.cpu().numpy()
        for step in range(self.policy.rollout_steps):
            decision = decide(self.network, self.envs.observations, self.memory)
            r.observations[step], r.began[step] = self.envs.observations, self.began
            r.actions[step], r.log_probabilities[step] = draw(decision, chances[step])
            r.values[step] = decision.values.numpy()
            if self.memory is not None:
                self.memory = decision.memory.to(self.memory.device)
            made, r.rewards[step], r.terminal[step] = self._step(r.actions[step])
            r.ended[step] = made.ended | r.terminal[step]
            if step:
                going = ~r.ended[step - 1]
                r.next_values[step - 1, going] = r.values[step, going]
            cut = r.ended[step] & ~r.terminal[step]  # its time was over: what comes after is worth something
            if cut.any():
                memory = None if self.memory is None else self.memory[torch.from_numpy(cut)]
                after = decide(self.network, made.observations[cut], memory)
                r.next_values[step, cut] = after.values.numpy()
            self.began = made.ended
            if self.memory is not None and made.ended.any():
                self.memory[torch.from_numpy(made.ended)] = 0
        going = ~r.ended[-1]
        last = decide(self.network, self.envs.observations, self.memory)
        r.next_values[-1, going] = last.values.numpy()[going]
        self.experience = None

    def _example_actions(self) -> np.ndarray:
        count = self.settings.environments
        return np.zeros((count, self.data.actions), np.float32) if self.data.continuous else np.zeros(count, np.int64)

    def example(self) -> Experience:
        """A batch of what is seen now, so that a step can be tried before the agent has lived."""
        empty = Rollout(self.policy.rollout_steps, self.envs.observations, self._example_actions(), 0)
        empty.observations[:] = self.envs.observations
        empty.memory = self.rollout.memory
        pick, units = (pick_steps if self.unit == 1 else pick_sequences), self.batch_size // self.unit
        return self._ready(pick(empty.experience(self.settings.gamma, self.policy), np.arange(units)))[0]

    def name_records(self, batch: Experience) -> str:
        return f"{self.batch_size} of the steps up to step {self.taken:,} in {self.data.source}"

    def state(self) -> Mapping[str, Tensor]:
        kept = {f"rollout.{name}": tensor for name, tensor in self.rollout.state().items()}
        memory = {} if self.memory is None else {"memory": self.memory}
        return {**super().state(), **kept, **memory, "began": torch.from_numpy(self.began)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        super().load(state)
        self.rollout.load(below(state, "rollout."))
        self.began = state["began"].numpy().copy()
        if self.memory is not None:
            self.memory = state["memory"].to(self.memory.device)
