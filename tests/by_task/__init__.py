"""What the battery must know of each task: one file a task, named as its folder in orchard.tasks, ends with `HOOKS`.

Every file is imported while tests are collected: a task's own code, and what that imports, is imported in functions.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchard.models import create_model, landmark_of

STEPS = 300

Loss = Callable[[], tuple[Tensor, Tensor]]  # what is learned from, and what is measured
Learn = Callable[[str, Any], tuple[nn.Module, Loss]]  # of a variant and its model: what learns, and its loss


@dataclass(frozen=True)
class Hooks:
    """How the battery treats the models of one task.

    learn: the loss of one batch, always the same, and the module whose parameters it moves;
    learned: the measure at which the batch counts as learned by heart;
    shorter: overrides that make a step cheap, such as short sequences;
    most_macs: multiply-adds of a configuration that is run for real;
    outputs: all that a model computes in training, where `forward` leaves something out;
    unlearned: parameters that no gradient reaches, by the nature of the model;
    before_codes: outputs before a choice of codes, which passes gradients in training only and may change by rounding;
    chosen: outputs that follow from a choice of boxes, which rounding may change;
    data: where a recipe's one step gets its data (a named set or a path), and settings beside the recipe's; makes what
    it needs in a folder of its own.
    """

    learn: Learn
    learned: float = 0.5
    learning_rate: float = 3e-3
    shorter: dict[str, Any] = field(default_factory=dict)
    most_macs: float = 125e6
    outputs: Callable[[Any, dict[str, Tensor]], Any] = lambda model, inputs: model(**inputs)
    unlearned: tuple[str, ...] = ()
    before_codes: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    data: Callable[[Path], tuple[str, dict[str, Any]]] = lambda folder: ("digits", {})


def hooks_of(task: str) -> Hooks:
    """Raises ModuleNotFoundError where a task has no file here."""
    hooks: Hooks = importlib.import_module(f"by_task.{task.replace('-', '_')}").HOOKS
    return hooks


def example(name: str, config: Any, count: int) -> dict[str, Tensor]:
    """Arguments of `forward` by their names, always the same."""
    landmark: Any = landmark_of(name)
    inputs: dict[str, Tensor] = landmark.example(config, count, torch.Generator().manual_seed(1))
    values = getattr(landmark.model, "value_range", None)
    if "images" in inputs and values == (0.0, 1.0):  # a density of pixels has no value outside
        inputs["images"] = inputs["images"].sigmoid()
    return inputs


def memorise(name: str, overrides: dict[str, Any], hooks: Hooks) -> list[float]:
    """The losses of a model that is shown the same batch until it knows it, or `STEPS` times."""
    torch.manual_seed(0)
    model = create_model(name, **overrides | hooks.shorter).train()
    learner, loss_of = hooks.learn(name, model)
    optimizer = torch.optim.Adam(learner.parameters(), lr=hooks.learning_rate)
    losses: list[float] = []
    while len(losses) < STEPS and (not losses or losses[-1] > hooks.learned):
        loss, measured = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(measured.item())
    return losses
