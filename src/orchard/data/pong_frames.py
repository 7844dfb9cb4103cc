"""Pong as DeepChem's tutorial sees it ("Using Reinforcement Learning to Play Pong").

The field is cut out, every second row and column is taken, and a pixel counts as lit where it is not the background's
colour. An action is repeated for four frames. One frame is an observation: what moves, the network has to remember.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

FIELD = slice(34, 194)  # rows of the screen, below the score
BACKGROUND = 144 + 72 + 17  # red, green and blue
REPEATED = 4  # frames


def lit_pixels(screen: np.ndarray) -> np.ndarray:
    """A screen (210, 160, 3) uint8 → (1, 80, 80) uint8, 255 where a pixel is lit and 0 elsewhere."""
    colours = screen[FIELD][::2, ::2].sum(2, dtype=np.int64)
    return np.where(colours == BACKGROUND, 0, 255).astype(np.uint8)[None]


class PongFrames(gymnasium.Wrapper):  # type: ignore[type-arg]
    """An Atari game, frame by frame and in colours, as lit pixels (1, 80, 80)."""

    def __init__(self, env: Any):
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(0, 255, (1, 80, 80), np.uint8)

    def reset(self, **how: Any) -> tuple[np.ndarray, dict[str, Any]]:
        screen, info = self.env.reset(**how)
        return lit_pixels(screen), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        total = 0.0
        for _ in range(REPEATED):
            screen, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return lit_pixels(screen), total, terminated, truncated, info
