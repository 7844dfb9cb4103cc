"""Environments in place of a data set: `gym:CartPole-v1`, `gym:ALE/Pong-v5`, or one's own, `python:module:Class`.

Every episode has a number, and its seed is a function of that number. What an environment does is then a function of
the episode's number and the actions so far, and these two are all that a checkpoint needs: resuming plays the
episode again up to where it stood. This holds for any environment that keeps to gymnasium's contract of seeds, an
emulator included, wrappers and all.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orchard.errors import UsageError, unknown

FRAMES = 4  # in an observation, where it is made of frames: one does not show what moves, and where to
DRAWN_IN_SILENCE = (("SDL_VIDEODRIVER", "dummy"), ("PYGAME_HIDE_SUPPORT_PROMPT", "1"))  # no display, no greeting
ATARI = {"noop_max": 30, "frame_skip": 4, "screen_size": 84, "grayscale_obs": True}  # Mnih et al. 2015, methods


@dataclass(frozen=True)
class EnvironmentData:
    """What there is to observe and to do."""

    source: str
    observation: tuple[int, ...]  # shape, the stack of frames in front where there is one
    pixels: bool  # a stack of frames in uint8, else a vector of numbers
    actions: int
    action_names: tuple[str, ...]
    solved_at: float | None  # the mean return that counts as solved, where the environment states it
    fingerprint: str

    @property
    def frames(self) -> int:
        """How many frames an observation is a stack of."""
        return FRAMES if self.pixels else 1


def open_environment(source: str) -> EnvironmentData:
    """Make an environment once and say what it is. Errors are those of `make_environment`."""
    env = make_environment(source)
    space, spec = env.observation_space, env.spec
    names = env.unwrapped.get_action_meanings() if hasattr(env.unwrapped, "get_action_meanings") else ()
    facts = {"source": source, "spec": spec.to_json() if spec else "", "space": str(space)}
    env.close()
    return EnvironmentData(
        source=source,
        observation=tuple(space.shape),
        pixels=len(space.shape) == 3,
        actions=int(env.action_space.n),
        action_names=tuple(names) or tuple(str(n) for n in range(env.action_space.n)),
        solved_at=spec.reward_threshold if spec else None,
        fingerprint=hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
    )


def make_environment(source: str, *, film: bool = False) -> Any:
    """A gymnasium environment with arrays as observations and numbered actions.

    Observations are vectors (N,), or frames (H, W) in uint8, stacked (4, H, W); Atari games become such frames as in
    the 2015 paper. With `film`, `render()` gives a picture. Raises UsageError where a package is missing, the name is
    not known, or observations or actions are of another kind.
    """
    gymnasium = _gymnasium(source)
    scheme, _, name = source.partition(":")
    mode = {"render_mode": "rgb_array"} if film else {}
    for quiet in DRAWN_IN_SILENCE if film else ():
        os.environ.setdefault(*quiet)
    if scheme not in ("gym", "python"):
        raise UsageError(f"'{source}' names no environment; expected gym:NAME, or python:module:Class for your own")
    try:
        env = _registered(gymnasium, name, mode) if scheme == "gym" else _own(name, mode)
    except gymnasium.error.DependencyNotInstalled as error:
        raise UsageError(f"{source}: {error}") from None
    if env.spec is not None and env.spec.namespace == "ALE":
        env = gymnasium.wrappers.AtariPreprocessing(env, **ATARI)
    space = env.observation_space
    if not isinstance(env.action_space, gymnasium.spaces.Discrete) or env.action_space.start != 0:
        raise UsageError(f"{source} has actions {env.action_space}, expected Discrete: a choice among some")
    frames = space.dtype == np.uint8 and len(space.shape or ()) == 2
    if not isinstance(space, gymnasium.spaces.Box) or not (frames or len(space.shape) == 1):
        raise UsageError(f"{source} has observations {space}, expected a vector, or grey frames (H, W) in uint8")
    return gymnasium.wrappers.FrameStackObservation(env, FRAMES) if frames else env


def _gymnasium(source: str) -> Any:
    try:
        return importlib.import_module("gymnasium")
    except ImportError:
        raise UsageError(f"{source} needs gymnasium: install it with pip install 'orchard[rl]'") from None


def _registered(gymnasium: Any, name: str, mode: dict[str, str]) -> Any:
    """An environment that gymnasium knows, or, once ale-py is there, one of its games."""
    game = name.startswith("ALE/")
    if game:
        try:
            ale = importlib.import_module("ale_py")
        except ImportError:
            raise UsageError(f"gym:{name} needs ale-py: install it with pip install 'orchard[rl]'") from None
        ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)  # else each game announces the emulator
        gymnasium.register_envs(ale)
    try:
        # The wrapper skips frames itself. Its checks cost as much as a step of a simple environment.
        return gymnasium.make(name, disable_env_checker=True, **mode, **({"frameskip": 1} if game else {}))
    except gymnasium.error.DependencyNotInstalled:
        raise
    except gymnasium.error.Error:
        raise unknown("environment", name, gymnasium.registry) from None


def _own(place: str, mode: dict[str, str]) -> Any:
    """An object of `module:Class`; the module may stand in the working folder."""
    module, _, name = place.partition(":")
    if not name:
        raise UsageError(f"'python:{place}' names no class; expected python:module:Class")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        kind = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise UsageError(f"{place}: there is no module '{error.name}' here or among the installed ones") from None
    except AttributeError:
        raise UsageError(f"{place}: module {module} has no '{name}'") from None
    try:
        return kind(**mode)
    except TypeError as error:
        raise UsageError(f"{place} cannot be made: {error}") from None


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
