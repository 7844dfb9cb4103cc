"""The training phases of one step: each updates some of the parameters from a loss of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Loss = Callable[[nn.Module, Any, int], tuple[Tensor, Mapping[str, Tensor]]]


@dataclass(frozen=True)
class Phase:
    """One update of a step: the parameters whose names begin with one of `parameters` learn from `loss`.

    `loss(model, batch, step)` gives a scalar and named metrics for the log: scalars that stay on the device, without a
    gradient. A classifier has one phase, an adversarial pair two. A phase happens in `every` n-th step (a lazy
    regulariser) and `repeat` times in it (n-critic), each repetition on a batch of its own where `fresh_batch` says so.
    `optimizer` names the optimizer; phases that update the same parameters share one, unless no step has both.
    `through_forward` says that the loss calls the model itself and that a tensor comes back, so that several processes
    may average gradients during the backward pass, as the module's hooks do. `after(model)` is called after each of its
    updates: the place to project parameters to where they may be. `rate(step)` is a share of the learning rate beside
    the schedule's, where steps are of unlike sizes; phases with one optimizer have the same.

    A phase lasts from step `begins` up to step `ends`, which it has no part in (None: to the end of the training). The
    schedule of an optimizer runs over the steps that its phases last, and after them its state is forgotten. The first
    phase of a training is the one whose progress is measured: there are no evaluations before it begins.
    """

    name: str
    loss: Loss
    parameters: tuple[str, ...] = ("",)
    optimizer: str = "main"
    every: int = 1
    repeat: int = 1
    fresh_batch: bool = False
    through_forward: bool = False
    rate: Callable[[int], float] | None = None
    after: Callable[[nn.Module], None] | None = None
    begins: int = 0
    ends: int | None = None

    def lasts(self, step: int) -> bool:
        """Is `step` (from 0) one between its beginning and its end?"""
        return self.begins <= step and (self.ends is None or step < self.ends)

    def happens(self, step: int) -> bool:
        """Is it part of `step`?"""
        return self.lasts(step) and step % self.every == 0

    def runs_before(self, step: int) -> int:
        """In how many of the steps before `step` this phase happens."""
        last = step if self.ends is None else min(step, self.ends)
        return max(-(-last // self.every) + -self.begins // self.every, 0)


def batches_before(phases: tuple[Phase, ...], step: int) -> int:
    """How many batches the steps before `step` take: one each, and what phases with fresh batches take besides."""
    return step + sum((phase.repeat - 1) * phase.runs_before(step) for phase in phases if phase.fresh_batch)


def one_phase(
    loss: Callable[[nn.Module, Any], tuple[Tensor, Mapping[str, Tensor]]], *, through_forward: bool = False
) -> tuple[Phase, ...]:
    """The phases of a task in which everything learns from one loss."""
    return (Phase("", lambda model, batch, step: loss(model, batch), through_forward=through_forward),)
