"""A generative model in training, with images that it made of the same noise along the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.training.learner import Learner

ROWS, COLUMNS = 12, 10  # moments that are kept, and images of each
SIDE = 64  # larger images are kept at this side


class GenerationLearner(Learner):
    """`model`, and a history of what it made, which is in the checkpoints.

    After every evaluation the same images are remembered. When there is no more room, every second moment is
    forgotten, and from then on every second one is left out, so that those that are kept are evenly apart.
    """

    history: Tensor  # (ROWS, COLUMNS, C, H, W) uint8
    steps: Tensor  # (ROWS,) int64, the step of each moment; 0 where there is none yet
    evaluations: Tensor  # () int64, how many there were
    step: Tensor  # () int64

    def __init__(self, model: nn.Module, shape: tuple[int, int, int], memory: Mapping[str, Tensor] | None = None):
        """`shape` (C, H, W) is an image's; `memory` is what the objective keeps from step to step, by name."""
        super().__init__()
        self.model = model
        for name, tensor in (memory or {}).items():
            self.register_buffer(name, tensor)
        channels, height, width = shape
        scale = min(1.0, SIDE / max(height, width))
        small = (channels, round(height * scale), round(width * scale))
        self.register_buffer("history", torch.zeros(ROWS, COLUMNS, *small, dtype=torch.uint8))
        self.register_buffer("steps", torch.zeros(ROWS, dtype=torch.int64))
        self.register_buffer("evaluations", torch.zeros((), dtype=torch.int64))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @property
    def config(self) -> Any:
        """The model's."""
        return self.model.config

    def forward(self, *inputs: Tensor) -> Any:
        return self.model(*inputs)

    def after_step(self, step: int) -> None:
        self.step.fill_(step)

    def remember(self, images: Tensor) -> None:
        """Keep the first images, (N, C, H, W) uint8, as those of the last step."""
        number = int(self.evaluations)
        self.evaluations += 1
        apart = 1
        while number // apart >= ROWS:
            apart *= 2
        if number % apart:
            return
        row = number // apart
        if apart > 1 and row == ROWS // 2:  # full with moments half as far apart
            self.history[:row] = self.history[::2].clone()
            self.steps[:row] = self.steps[::2].clone()
            self.steps[row:] = 0
        few = images[:COLUMNS].float()
        if few.shape[2:] != self.history.shape[3:]:
            few = F.interpolate(few, self.history.shape[3:], mode="bilinear", antialias=True)
        self.history[row, : len(few)] = few.round().clamp(0, 255).to(torch.uint8)
        self.steps[row] = self.step

    def moments(self) -> list[tuple[int, Tensor]]:
        """(step, images (COLUMNS, C, H, W) uint8) of every moment that is kept."""
        return [(int(step), images) for step, images in zip(self.steps, self.history, strict=True) if step]

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The model's."""
        groups = cast(Any, self.model).layer_groups()
        return [tuple(f"model.{prefix}" for prefix in group) for group in groups]
