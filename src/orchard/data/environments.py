"""Environments in place of a data set: agents act in them, and resumed trainings go on where they stood.

Every episode has a number, and its seed is a function of that number. What an environment does is then a function of
the episode's number and the actions so far, and these two are all that a checkpoint needs: resuming plays the
episode again up to where it stood. This holds for any environment that keeps to gymnasium's contract of seeds, an
emulator included, wrappers and all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orchard.data.open_environment import make_environment, missing
from orchard.errors import UsageError


def _numbers(observation: Any) -> np.ndarray:
    """Pixels as they are, everything else in float32."""
    array = np.asarray(observation)
    return array if array.dtype == np.uint8 else array.astype(np.float32)


def episode_seed(seed: int, number: int) -> int:
    """The seed of the episode of this number, below 2³²."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


@dataclass(frozen=True)
class Episode:
    """One that is over. `number` names it, `score` is the sum of its rewards, not discounted."""

    number: int
    score: float
    length: int


@dataclass(frozen=True)
class Step:
    """What a step led to, for N environments. `observations` are those before any new episode began."""

    observations: np.ndarray  # (N, ...)
    rewards: np.ndarray  # (N,) float32
    terminated: np.ndarray  # (N,) bool: the episode ended by itself, and nothing comes after
    ended: np.ndarray  # (N,) bool: it ended, by itself or because its time was over
    lives_lost: np.ndarray  # (N,) bool, where a game has lives
    finished: tuple[Episode, ...]


class Environments:
    """`count` environments side by side, which begin a new episode by themselves when one is over.

    Environment i plays the episodes i, i + count, i + 2 count, ... `observations` (count, ...) is what they show now.
    """

    def __init__(self, source: str, count: int, seed: int, *, film: bool = False):
        self.source, self.seed = source, seed
        self.envs = [make_environment(source, film=film) for _ in range(count)]
        self.numbers = list(range(count))
        self.played: list[list[int]] = [[] for _ in range(count)]  # actions of the episode that each is in
        self.scores, self.lives = [0.0] * count, [0] * count
        self.observations = np.stack([self._begin(place) for place in range(count)])

    def _begin(self, place: int) -> np.ndarray:
        """The first observation of the episode that this environment is to play."""
        observation, info = self.envs[place].reset(seed=episode_seed(self.seed, self.numbers[place]))
        self.played[place], self.scores[place], self.lives[place] = [], 0.0, info.get("lives", 0)
        return _numbers(observation)

    def step(self, actions: np.ndarray) -> Step:
        """Take `actions` (count,) int64, one in each environment."""
        seen = np.empty_like(self.observations)
        rewards = np.empty(len(self.envs), np.float32)
        terminated, ended, lost = (np.zeros(len(self.envs), bool) for _ in range(3))
        finished = []
        for place, action in enumerate(actions.tolist()):
            seen[place], rewards[place], terminated[place], truncated, lives = self._step(place, action)
            ended[place] = terminated[place] or truncated
            lost[place] = lives < self.lives[place]
            self.lives[place] = lives
        self.observations = seen.copy()
        for place in np.flatnonzero(ended).tolist():
            finished.append(Episode(self.numbers[place], self.scores[place], len(self.played[place])))
            self.numbers[place] += len(self.envs)
            self.observations[place] = self._begin(place)
        return Step(seen, rewards, terminated, ended, lost, tuple(finished))

    def _step(self, place: int, action: int) -> tuple[np.ndarray, float, bool, bool, int]:
        observation, reward, terminated, truncated, info = self.envs[place].step(action)
        self.played[place].append(action)
        self.scores[place] += float(reward)
        return _numbers(observation), float(reward), terminated, truncated, info.get("lives", 0)

    def picture(self) -> np.ndarray:
        """What the first environment looks like, (H, W, 3) uint8; UsageError where it draws nothing."""
        from gymnasium.error import DependencyNotInstalled

        try:
            pixels = self.envs[0].render()
        except DependencyNotInstalled as error:
            raise missing(self.source, error) from None
        if not isinstance(pixels, np.ndarray) or pixels.ndim != 3:
            given = type(pixels).__name__
            raise UsageError(f"{self.source} draws no pictures: its render() gave {given}, expected (H, W, 3)")
        return pixels

    def close(self) -> None:
        for env in self.envs:
            env.close()

    def state(self) -> dict[str, Tensor]:
        """Where each episode stands: its number, the actions so far (padded with -1) and what is seen now."""
        longest = max(map(len, self.played))
        actions = [played + [-1] * (longest - len(played)) for played in self.played]
        return {
            "numbers": torch.tensor(self.numbers),
            "actions": torch.tensor(actions, dtype=torch.int64).view(len(self.envs), longest),
            "observations": torch.from_numpy(self.observations),
        }

    def load(self, state: dict[str, Tensor], warn: Callable[[str], None]) -> None:
        """Play every episode up to where it stood. One that comes out otherwise begins anew, and `warn` says so."""
        self.numbers = state["numbers"].tolist()
        for place, actions in enumerate(state["actions"].tolist()):
            self.observations[place] = self._begin(place)
            over = False
            for action in actions:
                if action < 0 or over:
                    break
                self.observations[place], _, terminated, truncated, self.lives[place] = self._step(place, action)
                over = terminated or truncated
            if over or not np.array_equal(self.observations[place], state["observations"][place].numpy()):
                warn(f"{self.source} does not repeat an episode from its seed and actions: resumed with a new episode")
                self.observations[place] = self._begin(place)
