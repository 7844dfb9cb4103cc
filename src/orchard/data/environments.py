"""Environments in place of a data set: agents act in them, and resumed trainings go on where they stood.

Every episode has a number, and its seed is a function of that number. What an environment does is then a function of
the episode's number and the actions so far, and these two are all that a checkpoint needs: resuming plays the
episode again up to where it stood. This holds for any environment that keeps to gymnasium's contract of seeds, an
emulator included, wrappers and all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orchard.data.open_environment import make_environment, missing
from orchard.data.time_limit import time_limit
from orchard.errors import OrchardError, UsageError

STEP_SECONDS = 60.0  # that an environment may take for a step
KEPT = "what was trained before is kept, and the same command goes on from there"


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
    What they raise, and what they give that is no number or has another shape, is an OrchardError that names the step.
    """

    def __init__(
        self, source: str, count: int, seed: int, *, film: bool = False, view: str = "grey",
        step_seconds: float = STEP_SECONDS,
    ):  # fmt: skip
        self.source, self.seed, self.step_seconds = source, seed, step_seconds
        self.envs = [make_environment(source, film=film, view=view) for _ in range(count)]
        space = self.envs[0].action_space
        self.bounds = (space.low, space.high) if hasattr(space, "high") else None  # of actions that are real numbers
        self.shape: tuple[int, ...] = self.envs[0].observation_space.shape
        self.numbers = list(range(count))
        self.played: list[list[Any]] = [[] for _ in range(count)]  # actions of the episode that each is in
        self.scores, self.lives = [0.0] * count, [0] * count
        with time_limit(step_seconds * count, f"{source}: reset()"):
            self.observations = np.stack([self._begin(place) for place in range(count)])

    def _begin(self, place: int) -> np.ndarray:
        """The first observation of the episode that this environment is to play."""
        self.played[place], self.scores[place] = [], 0.0
        try:
            observation, info = self.envs[place].reset(seed=episode_seed(self.seed, self.numbers[place]))
        except OrchardError:
            raise
        except Exception as error:
            raise self._failed(place, error) from error
        self.lives[place] = info.get("lives", 0)
        array = self._checked(place, observation)
        self._check_finite(array[None], np.zeros(1), place)
        return array

    def step(self, actions: np.ndarray) -> Step:
        """Take `actions`, one in each environment: (count,) int64, or (count, A) real numbers, which are clipped to
        the bounds that the environment states."""
        seen = np.empty_like(self.observations)
        rewards = np.empty(len(self.envs), np.float32)
        terminated, ended, lost = (np.zeros(len(self.envs), bool) for _ in range(3))
        with time_limit(self.step_seconds, f"{self.source}: a step"):
            for place, action in enumerate(actions.tolist()):
                seen[place], rewards[place], terminated[place], truncated, lives = self._step(place, action)
                ended[place] = terminated[place] or truncated
                lost[place] = lives < self.lives[place]
                self.lives[place] = lives
            self._check_finite(seen, rewards)
            self.observations = seen.copy()
            finished = []
            for place in np.flatnonzero(ended).tolist():
                finished.append(Episode(self.numbers[place], self.scores[place], len(self.played[place])))
                self.numbers[place] += len(self.envs)
                self.observations[place] = self._begin(place)
        return Step(seen, rewards, terminated, ended, lost, tuple(finished))

    def _step(self, place: int, action: Any) -> tuple[np.ndarray, float, bool, bool, int]:
        self.played[place].append(action)
        given = action if self.bounds is None else np.clip(np.asarray(action, np.float32), *self.bounds)
        try:
            observation, reward, terminated, truncated, info = self.envs[place].step(given)
            reward = float(reward)
        except OrchardError:
            raise
        except Exception as error:
            raise self._failed(place, error) from error
        self.scores[place] += reward
        return self._checked(place, observation), reward, terminated, truncated, info.get("lives", 0)

    def _checked(self, place: int, observation: Any) -> np.ndarray:
        """What is seen, as an array. Raises OrchardError for another shape."""
        array = _numbers(observation)
        if array.shape != self.shape:
            raise OrchardError(
                f"{self._where(place)} has an observation of shape {array.shape}, expected {self.shape}; {KEPT}"
            )
        return array

    def _check_finite(self, seen: np.ndarray, rewards: np.ndarray, first: int = 0) -> None:
        """Raise OrchardError where an observation (N, ...) or a reward (N,) is no number; `first` is the environment
        that the first of them is of."""
        for what, found in (("a reward", rewards), ("an observation", seen)):
            if found.dtype != np.uint8 and not np.isfinite(found).all():
                bad = int(np.argmin(np.isfinite(found).reshape(len(found), -1).all(1)))
                raise OrchardError(f"{self._where(first + bad)} has {what} that is not a finite number; {KEPT}")

    def _failed(self, place: int, error: Exception) -> OrchardError:
        first = (str(error).strip().splitlines() or [""])[0]
        return OrchardError(f"{self._where(place)} raised {type(error).__name__}: {first}; {KEPT}")

    def _where(self, place: int) -> str:
        return f"{self.source}: step {len(self.played[place])} of episode {self.numbers[place]}"

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
        """Where each episode stands: its number, the actions so far and what is seen now.

        Numbered actions are padded with -1 (N, T), real ones with what is no number (N, T, A).
        """
        longest = max(map(len, self.played))
        if self.bounds is None:
            rows = [played + [-1] * (longest - len(played)) for played in self.played]
            actions = torch.tensor(rows, dtype=torch.int64).view(len(self.envs), longest)
        else:
            actions = torch.full((len(self.envs), longest, len(self.bounds[0])), math.nan)
            for place, played in enumerate(self.played):
                actions[place, : len(played)] = torch.tensor(played).view(len(played), actions.shape[2])
        return {
            "numbers": torch.tensor(self.numbers),
            "actions": actions,
            "observations": torch.from_numpy(self.observations),
        }

    def load(self, state: dict[str, Tensor], warn: Callable[[str], None]) -> None:
        """Play every episode up to where it stood. One that comes out otherwise begins anew, and `warn` says so."""
        self.numbers = state["numbers"].tolist()
        done = state["actions"] >= 0 if self.bounds is None else ~state["actions"].isnan().any(2)
        for place, actions in enumerate(state["actions"]):
            self.observations[place] = self._begin(place)
            over = False
            for action in actions[done[place]].tolist():
                self.observations[place], _, terminated, truncated, self.lives[place] = self._step(place, action)
                over = terminated or truncated
                if over:
                    break
            if over or not np.array_equal(self.observations[place], state["observations"][place].numpy()):
                warn(f"{self.source} does not repeat an episode from its seed and actions: resumed with a new episode")
                self.observations[place] = self._begin(place)
