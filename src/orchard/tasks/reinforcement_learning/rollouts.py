"""Rollouts: the next T steps of N agents, kept until they have been learned from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orchard.data.batches import Batch
from orchard.tasks.reinforcement_learning.returns import generalised_advantages
from orchard.tasks.reinforcement_learning.settings import PolicySettings


@dataclass(frozen=True)
class Experience(Batch):
    """B steps; of networks with a memory, B sequences of T steps, each with an axis T behind the first."""

    observations: Tensor  # (B, ...)
    actions: Tensor  # (B,) int64, or (B, A) float32
    log_probabilities: Tensor  # (B,), as all that follows: of these actions, when they were taken
    values: Tensor  # what the critic thought of the states then
    advantages: Tensor
    returns: Tensor  # what it should have thought
    began: Tensor  # bool: a new episode begins here
    memory: Tensor  # (B, units): the state before the first step; no units without a memory


class Rollout:
    """Arrays (T, N, ...), filled step by step."""

    def __init__(self, steps: int, observations: np.ndarray, actions: np.ndarray, units: int):
        """`observations` (N, ...) and `actions` (N, ...) are examples of what a step has."""
        shape = (steps, len(observations))
        self.observations = np.zeros((steps, *observations.shape), observations.dtype)
        self.actions = np.zeros((steps, *actions.shape), actions.dtype)
        self.log_probabilities, self.values, self.next_values, self.rewards = (
            np.zeros(shape, np.float32) for _ in range(4)
        )
        self.terminal, self.ended, self.began = (np.zeros(shape, bool) for _ in range(3))
        self.memory = np.zeros((len(observations), units), np.float32)

    def experience(self, gamma: float, settings: PolicySettings) -> Experience:
        """All steps as (T, N, ...), with advantages and returns; the memory stays (N, units)."""
        s = settings
        next_values = self.next_values
        returned = generalised_advantages(
            self.rewards, self.values, next_values, self.terminal, self.ended, gamma=gamma,
            decay=1.0 if s.value_target == "discounted" else s.gae_lambda,
        )  # fmt: skip
        if s.loss == "a2c_released":  # what comes after the last step is discounted once more for the advantages
            next_values = np.concatenate([next_values[:-1], gamma * next_values[-1:]])
        advantages = generalised_advantages(
            self.rewards, self.values, next_values, self.terminal, self.ended, gamma=gamma, decay=s.gae_lambda
        )
        arrays = (
            self.observations, self.actions, self.log_probabilities, self.values, advantages, returned + self.values,
            self.began, self.memory,
        )  # fmt: skip
        return Experience(*map(torch.from_numpy, arrays))

    def state(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array) for name, array in vars(self).items()}

    def load(self, state: dict[str, Tensor]) -> None:
        for name, array in vars(self).items():
            array[:] = state[name].numpy()


def pick_steps(all_steps: Experience, which: np.ndarray) -> Experience:
    """The steps (B,) of those of an `Experience` (T, N, ...), counted step by step, environment by environment."""
    chosen = torch.from_numpy(which)
    columns = {name: tensor.flatten(0, 1)[chosen] for name, tensor in vars(all_steps).items() if name != "memory"}
    return Experience(**columns, memory=all_steps.memory.new_zeros(len(which), 0))


def pick_sequences(all_steps: Experience, which: np.ndarray) -> Experience:
    """What the environments `which` (B,) went through, as sequences (B, T, ...)."""
    chosen = torch.from_numpy(which)
    columns = {name: tensor.transpose(0, 1)[chosen] for name, tensor in vars(all_steps).items() if name != "memory"}
    return Experience(**columns, memory=all_steps.memory[chosen])


def normalised(batch: Experience) -> Experience:
    """The batch with advantages of mean 0 and standard deviation 1."""
    advantages = batch.advantages
    scaled = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    return Experience(**{**vars(batch), "advantages": scaled})
