"""The replay buffer: the last transitions of an agent, drawn from uniformly (Mnih et al. 2015, "Experience replay"), or
by their priorities.

Each environment has a ring of rows, one row a step: what was seen, what was done, what it gave. What came of it is the
next row. An episode ends with a row of its own that holds the last observation, in which nothing was done. So every
observation is stored once, and of a stack of frames only the newest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orchard.data.batches import Batch
from orchard.data.counter_rng import uniforms
from orchard.errors import OrchardError
from orchard.tasks.reinforcement_learning.priorities import Priorities


@dataclass(frozen=True)
class Transitions(Batch):
    """B transitions. `rewards` are sums over n steps where the buffer is asked for them, discounted.

    `discounts` says what the value of the next observation counts: γⁿ, or 0 where the episode had ended by itself.
    """

    observations: Tensor  # (B, ...)
    actions: Tensor  # (B,) int64
    rewards: Tensor  # (B,) float32
    discounts: Tensor  # (B,) float32
    next_observations: Tensor  # (B, ...)
    weights: Tensor  # (B,) float32: how much each counts; all 1 where they are drawn uniformly
    rows: Tensor  # (B,) int64: where they stand in the buffer, counted ring by ring; -1 where they do not


def n_step_returns(
    rewards: np.ndarray, terminated: np.ndarray, last: np.ndarray, gamma: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (B,), discounts (B,) and steps (B,) of up to n steps: rewards and flags are (B, n), in order of time.

    After a step that terminated or was the last of its episode nothing counts (Sutton 1988; Hessel et al. 2017,
    arXiv:1710.02298, section "Multi-step learning").
    """
    over = np.logical_or(terminated, last)[:, :-1]
    counts = np.concatenate([np.ones((len(over), 1), bool), ~np.logical_or.accumulate(over, axis=1)], axis=1)
    powers = gamma ** np.arange(rewards.shape[1])
    steps = counts.sum(1)
    discounts = np.where((counts & terminated).any(1), 0.0, gamma**steps)
    return (counts * powers * rewards).sum(1).astype(np.float32), discounts.astype(np.float32), steps


class ReplayBuffer:
    """Rings for `environments` environments that hold `capacity` rows together.

    `observation` is the shape of an observation. With `frames` above 1 its first axis is a stack of so many frames,
    oldest first, which repeats the first frame of an episode where there are fewer, as gymnasium's wrapper does.
    With `alpha` above 0, transitions are drawn by their `Priorities`.
    """

    def __init__(
        self, capacity: int, observation: tuple[int, ...], dtype: np.dtype, *, frames: int = 1, environments: int = 1,
        alpha: float = 0.0,
    ):  # fmt: skip
        self.rows, self.frames, self.environments = capacity // environments, frames, environments
        shape = (environments, self.rows)
        self.seen = np.zeros(shape + (observation[1:] if frames > 1 else observation), dtype)
        self.actions = np.zeros(shape, np.int64)
        self.rewards = np.zeros(shape, np.float32)
        self.terminated = np.zeros(shape, bool)
        self.last = np.zeros(shape, bool)  # rows in which an episode is over and nothing is done
        self.written = np.zeros(environments, np.int64)  # rows ever; row n stands at n modulo the ring
        self.priorities = Priorities(environments, self.rows, alpha) if alpha else None

    def add(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        terminated: np.ndarray,
        ended: np.ndarray,
        next_observations: np.ndarray,
    ) -> None:
        """One step of every environment, arrays (N, ...). Where `ended`, the next observation is kept too.

        A step that terminated is worth its reward and no more, whether or not the episode ended with it.
        """
        self._write(np.arange(self.environments), observations, actions, rewards, terminated, False)
        (over,) = np.nonzero(ended)
        self._write(over, next_observations[over], 0, 0.0, False, True)

    def _write(
        self,
        rings: np.ndarray,
        observations: np.ndarray,
        actions: np.ndarray | int,
        rewards: np.ndarray | float,
        terminated: np.ndarray | bool,
        last: bool,
    ) -> None:
        at = (rings, self.written[rings] % self.rows)
        self.seen[at] = observations[:, -1] if self.frames > 1 else observations
        self.actions[at], self.rewards[at], self.terminated[at], self.last[at] = actions, rewards, terminated, last
        if self.priorities is not None:
            self.priorities.write(at, drawable=not last)
        self.written[rings] += 1

    def sample(
        self, count: int, seed: int, step: int, *, gamma: float, n_step: int = 1, beta: float = 1.0
    ) -> Transitions:
        """`count` transitions, which are a function of `seed`, `step` and what the buffer holds.

        `beta` says how far weights make up for priorities. Raises OrchardError where it holds too little to draw from.
        """
        if self.priorities is not None:
            chances = uniforms(seed, step, np.arange(count), 1).ravel()
            found, weights = self.priorities.draw(chances, self._incomplete(n_step), beta)
            if len(found):
                rings, at = np.divmod(found, self.rows)
                newest = self.written[rings] - 1
                return self._transitions(rings, newest - (newest - at) % self.rows, gamma, n_step, weights)
            raise self._too_few(count, n_step)
        oldest = np.maximum(self.written - self.rows, 0)
        # The frames before the oldest row are gone, and what came of the newest is not there yet.
        first = oldest + np.where(oldest > 0, self.frames - 1, 0)
        room = np.maximum(self.written - n_step - first, 0)
        rings, rows = np.zeros(count, np.int64), np.zeros(count, np.int64)
        wanting = np.arange(count)
        for draw in uniforms(seed, step, wanting).reshape(count, -1, 2).swapaxes(0, 1):
            ring = (draw[wanting, 0] * self.environments).astype(np.int64)
            row = first[ring] + (draw[wanting, 1] * room[ring]).astype(np.int64)
            rings[wanting], rows[wanting] = ring, row
            wanting = wanting[(room[ring] == 0) | self.last[ring, row % self.rows]]
            if not len(wanting):
                return self._transitions(rings, rows, gamma, n_step, np.ones(count, np.float32))
        raise self._too_few(count, n_step)

    def _too_few(self, count: int, n_step: int) -> OrchardError:
        return OrchardError(
            f"the replay buffer holds {int(self.written.sum())} steps, too few to draw {count} transitions of "
            f"{n_step} from; let more steps pass before learning starts, or give more capacity"
        )

    def _incomplete(self, n_step: int) -> tuple[np.ndarray, np.ndarray]:
        """Rings and rows of what cannot be drawn: what came of the newest is not there yet, and the frames before the
        oldest are gone."""
        newest = self.written[:, None] - 1 - np.arange(n_step)
        oldest = self.written[:, None] + np.arange(self.frames - 1) * (self.written > self.rows)[:, None]
        rows = np.concatenate([newest, oldest], axis=1) % self.rows
        return np.repeat(np.arange(self.environments), rows.shape[1]), rows.ravel()

    def _transitions(
        self, rings: np.ndarray, rows: np.ndarray, gamma: float, n_step: int, weights: np.ndarray
    ) -> Transitions:
        times = rows[:, None] + np.arange(n_step)  # (B, n)
        here, after = (rings[:, None], times % self.rows), (rings[:, None], (times + 1) % self.rows)
        returns, discounts, steps = n_step_returns(self.rewards[here], self.terminated[here], self.last[after], gamma)
        return Transitions(
            observations=torch.from_numpy(self._observations(rings, rows)),
            actions=torch.from_numpy(self.actions[rings, rows % self.rows]),
            rewards=torch.from_numpy(returns),
            discounts=torch.from_numpy(discounts),
            next_observations=torch.from_numpy(self._observations(rings, rows + steps)),
            weights=torch.from_numpy(weights),
            rows=torch.from_numpy(rings * self.rows + rows % self.rows),
        )

    def _observations(self, rings: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """What was seen in these rows, the stack put together again."""
        if self.frames == 1:
            return self.seen[rings, rows % self.rows]
        times = [rows]
        for _ in range(self.frames - 1):
            before = times[-1] - 1
            began = (before < 0) | self.last[rings, before % self.rows]
            times.append(np.where(began, times[-1], before))
        stacked = np.stack(times[::-1], axis=1)  # (B, frames), oldest first
        return self.seen[rings[:, None], stacked % self.rows]

    def state(self) -> dict[str, Tensor]:
        """Everything the buffer holds: no more than has been written."""
        held = int(min(self.written.max(), self.rows))
        arrays = {"seen": self.seen, "actions": self.actions, "rewards": self.rewards}
        arrays |= {"terminated": self.terminated, "last": self.last}
        state = {name: torch.from_numpy(array[:, :held]) for name, array in arrays.items()}
        more = self.priorities.state() if self.priorities is not None else {}
        return {**state, **more, "written": torch.from_numpy(self.written)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Hold what `state` holds; raises OrchardError where it is of a buffer of another form."""
        held = state["seen"].shape[1]
        if state["seen"].shape[2:] != self.seen.shape[2:] or held > self.rows or len(state["seen"]) != len(self.seen):
            raise OrchardError(
                f"the checkpoint's replay buffer has the form {tuple(state['seen'].shape)}, this one "
                f"{self.seen.shape}: environment, capacity and number of environments must be as they were"
            )
        for name in ("seen", "actions", "rewards", "terminated", "last"):
            getattr(self, name)[:, :held] = state[name].numpy()
        self.written[:] = state["written"].numpy()
        if self.priorities is not None:
            self.priorities.load(state)
