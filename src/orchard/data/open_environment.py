"""Opening an environment: `gym:CartPole-v1`, `gym:ALE/Pong-v5`, or one's own, `python:module:Class`."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchard.errors import UsageError, unknown

FRAMES = 4  # in an observation, where it is made of frames: one does not show what moves, and where to
DRAWN_IN_SILENCE = (("SDL_VIDEODRIVER", "dummy"), ("PYGAME_HIDE_SUPPORT_PROMPT", "1"))  # no display, no greeting
ATARI = {"noop_max": 30, "frame_skip": 4, "screen_size": 84, "grayscale_obs": True}  # Mnih et al. 2015, methods


@dataclass(frozen=True)
class EnvironmentData:
    """What there is to observe and to do."""

    source: str
    observation: tuple[int, ...]  # shape, the frames in front where there are some
    pixels: bool  # frames in uint8, else a vector of numbers
    frames: int  # how many frames an observation is a stack of
    actions: int  # how many there are to choose from, or how many numbers an action has
    continuous: bool  # an action is real numbers
    action_names: tuple[str, ...]
    solved_at: float | None  # the mean return that counts as solved, where the environment states it
    fingerprint: str


def open_environment(source: str, *, view: str = "grey") -> EnvironmentData:
    """Make an environment once and say what it is. Errors are those of `make_environment`."""
    env = make_environment(source, view=view)
    space, spec = env.observation_space, env.spec
    names = env.unwrapped.get_action_meanings() if hasattr(env.unwrapped, "get_action_meanings") else ()
    facts = {"source": source, "spec": spec.to_json() if spec else "", "space": str(space)}
    continuous = hasattr(env.action_space, "high")
    actions = env.action_space.shape[0] if continuous else int(env.action_space.n)
    env.close()
    return EnvironmentData(
        source=source,
        observation=tuple(space.shape),
        pixels=len(space.shape) == 3,
        frames=FRAMES if len(space.shape) == 3 and space.shape[0] == FRAMES else 1,
        actions=actions,
        continuous=continuous,
        action_names=tuple(names) or tuple(str(n) for n in range(actions)),
        solved_at=spec.reward_threshold if spec else None,
        fingerprint=hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
    )


def make_environment(source: str, *, film: bool = False, view: str = "grey") -> Any:
    """A gymnasium environment with arrays as observations, and actions that are numbered or vectors of real numbers.

    Observations are vectors (N,), or frames (H, W) in uint8, stacked (4, H, W). Atari games become such frames as in
    the 2015 paper, or, by the `view` "pong", (1, 80, 80) as in DeepChem's tutorial. With `film`, `render()` gives a
    picture. Raises UsageError where a package is missing, the name is not known, or observations or actions are of
    another kind.
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
        if env.spec is not None and env.spec.namespace == "ALE":
            env = _as_seen(gymnasium, env, view)
    except gymnasium.error.DependencyNotInstalled as error:
        raise missing(source, error) from None
    space, spaces = env.observation_space, gymnasium.spaces
    _check_actions(source, env.action_space, spaces)
    box = isinstance(space, spaces.Box)
    frames = box and space.dtype == np.uint8 and len(space.shape) in (2, 3)
    if not box or not (frames or len(space.shape) == 1):
        raise UsageError(f"{source} has observations {space}, expected a vector, or grey frames (H, W) in uint8")
    stacked = frames and len(space.shape) == 2
    return gymnasium.wrappers.FrameStackObservation(env, FRAMES) if stacked else env


def _as_seen(gymnasium: Any, env: Any, view: str) -> Any:
    """An Atari game as a network sees it."""
    if view == "pong":
        from orchard.data.pong_frames import PongFrames  # here, as gymnasium is no requirement

        return PongFrames(env)
    return gymnasium.wrappers.AtariPreprocessing(env, **ATARI)


def _check_actions(source: str, space: Any, spaces: Any) -> None:
    numbered = isinstance(space, spaces.Discrete) and space.start == 0
    real = isinstance(space, spaces.Box) and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating)
    if not numbered and not real:
        raise UsageError(
            f"{source} has actions {space}, expected Discrete (a choice among some), or a Box of one axis of real "
            "numbers"
        )


def _gymnasium(source: str) -> Any:
    try:
        return importlib.import_module("gymnasium")
    except ImportError:
        raise UsageError(f"{source} needs gymnasium: install it with pip install 'orchard[rl]'") from None


def missing(source: str, error: Exception) -> UsageError:
    """What an environment needs and gymnasium does not bring."""
    return UsageError(f"{source}: {error}; pip install 'orchard[rl]' brings what Atari and classic control need")


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
        # AtariPreprocessing skips frames itself. The checker costs as much as a step of a simple environment.
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
