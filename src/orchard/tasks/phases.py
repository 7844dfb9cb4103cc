"""Whose turn it is: a step of training is one or several phases, each with parameters and an optimizer of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Phase:
    """One turn of a step: the parameters whose names begin with one of `learns` learn from `loss`.

    `loss(model, batch, step)` gives a scalar and whatever `observe` of the task makes figures of. A classifier has one
    phase; an adversarial pair has two, on the same batch. `through_forward` says that the loss reaches the parameters
    by calling the model itself and a tensor comes back, so that several processes may synchronise gradients as the
    module's hooks do, while the backward pass is still running.
    """

    name: str
    learns: tuple[str, ...]
    loss: Callable[[nn.Module, Any, int], tuple[Tensor, Any]]
    through_forward: bool = False


def one_phase(
    loss: Callable[[nn.Module, Any], tuple[Tensor, Any]], *, through_forward: bool = False
) -> tuple[Phase, ...]:
    """The phases of a task in which everything learns from one loss."""
    return (Phase("", ("",), lambda model, batch, step: loss(model, batch), through_forward),)
