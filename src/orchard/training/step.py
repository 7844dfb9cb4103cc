"""One step of a training: every phase that happens in it updates its parameters from a global batch.

The randomness of a step is seeded from its number, so that a step is a function of the weights, the optimizers' state
and the batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from orchard.training.learner import Learner
from orchard.training.optim import (
    average_of,
    build_optimizer,
    layer_groups,
    learning_rate_factor,
    owners,
    set_learning_rate,
)
from orchard.training.phases import Phase
from orchard.training.trainable import Trainable


class NotFinite(Exception):
    """A loss or a gradient is no longer a number. Raised before it reaches the weights.

    `updated` says that another update of the same step has been made already, so that the weights are of no step.
    """

    def __init__(self, what: str, value: float, batch: Any, *, updated: bool):
        super().__init__(what)
        self.what, self.value, self.batch = what, value, batch  # the micro-batch that it was found in
        self.updated = updated


class Stepper:
    """The model that learns, its optimizers and the average of its weights."""

    def __init__(self, job: Trainable, steps: int, per_epoch: int):
        settings, fabric, phases = job.settings, job.fabric, tuple(job.phases)
        self.job, self.settings, self.fabric, self.phases = job, settings, fabric, phases
        self.steps, self.per_epoch = steps, per_epoch
        self.bare = job.model.to(fabric.device).eval()  # each evaluation leaves it so; a step begins in training mode
        self.learning = {name: parameter for name, parameter in job.model.named_parameters() if parameter.requires_grad}
        schedule = settings.schedule
        self.warmup = schedule.warmup_steps or round(schedule.warmup_epochs * per_epoch)
        self.average = average_of(self.bare, settings.ema) if settings.ema else None
        self.head_steps = round(job.head_epochs * per_epoch)
        head = layer_groups(self.bare)[-1] if self.head_steps else ()
        self.below_head = [p for name, p in self.learning.items() if not name.startswith(head)] if head else []
        names = dict.fromkeys(phase.optimizer for phase in phases)
        self.spans = {name: _span(phases, name) for name in names}
        self.rates = {name: job.optimizer_settings(name) for name in names}
        self.plain_optimizers = {
            name: build_optimizer(self.bare, self.rates[name], _prefixes(phases, name)) for name in names
        }
        for phase in phases:
            owners(self.in_use(phase.begins))
        if settings.compile:
            self.bare.compile()
        self.hooked = len(phases) == 1 and phases[0].through_forward
        self.optimizers: dict[str, Any] = dict(self.plain_optimizers)
        self.model: Any = self.bare
        if self.hooked:  # other gradients do not come through the module's own forward; `_accumulate` averages them
            self.model, *wrapped = fabric.setup(self.bare, *self.plain_optimizers.values())
            self.optimizers = dict(zip(names, wrapped, strict=True))
        self.metrics: dict[str, Tensor] = {}  # of the latest step; on the device
        self.updated = False  # has a phase of the step that is being made updated its parameters?

    @property
    def evaluated(self) -> nn.Module:
        """The weights that count: the average where there is one."""
        return self.average.module if self.average is not None else self.bare

    def run(self, step: int, batches: Iterator[list[Any]], spent: float) -> Mapping[str, Tensor]:
        """Do step number `step` (from 0) on the next of the global batches, each a list of micro-batches.

        `spent` is the share of the time allowed that is over. Returns the step's metrics; raises NotFinite.
        """
        parts = next(batches)
        self.metrics, self.updated = {}, False
        self._seed(step)
        if not self.bare.training or step == self.head_steps:
            self.job.train_mode(self.bare)
            if step < self.head_steps:
                self._rest_below_head()
        rates = {}
        for name, optimizer in self.in_use(step).items():
            begins, ends = self.spans[name]
            factor = learning_rate_factor(
                step - begins, (ends or self.steps) - begins, self.warmup, self.settings.schedule,
                per_epoch=self.per_epoch, spent=spent,
            )  # fmt: skip
            rates[name] = self.rates[name].lr * factor * self._rate(name, step)
            set_learning_rate(optimizer, rates[name])
        self._add({"lr": torch.tensor(next(iter(rates.values()), 0.0), dtype=torch.float64)}, 1)
        for phase in self.phases:
            if not phase.happens(step):
                continue
            for repetition in range(phase.repeat):
                if repetition and phase.fresh_batch:
                    parts = next(batches)
                self._update(phase, parts, step)
        if isinstance(self.bare, Learner):
            self.bare.after_step(step + 1)
        if self.average is not None:
            self.average.update_parameters(self.bare)
        if self.borders(step + 1):
            for name in self.plain_optimizers.keys() - self.in_use(step + 1).keys():
                self.plain_optimizers[name].state.clear()  # of one that is over, or has not begun and has none
        return self.metrics

    def in_use(self, step: int) -> dict[str, torch.optim.Optimizer]:
        """The optimizers of the phases that `step` lies in."""
        names = {phase.optimizer for phase in self.phases if phase.lasts(step)}
        return {name: optimizer for name, optimizer in self.plain_optimizers.items() if name in names}

    def _rate(self, optimizer: str, step: int) -> float:
        """What the phases of an optimizer say of their step's share of the learning rate."""
        shares = [phase.rate(step) for phase in self.phases if phase.optimizer == optimizer and phase.rate]
        return shares[0] if shares else 1.0

    def borders(self, step: int) -> bool:
        """Does a phase begin or end before `step`?"""
        return any(step in (phase.begins, phase.ends) for phase in self.phases)

    def column(self, metric: str, phase: Phase) -> str:
        """The name of a metric that every phase has: the first phase's is the step's own."""
        return metric if phase is self.phases[0] else f"{phase.name}_{metric}"

    def _update(self, phase: Phase, parts: list[Any], step: int) -> None:
        """One update of one phase's parameters."""
        learning = self._enable_gradients(phase)
        losses = self._accumulate(phase, parts, step)
        if step < self.head_steps:
            for parameter in self.below_head:
                parameter.grad = None
        norm = torch.nn.utils.get_total_norm([p.grad for p in learning if p.grad is not None])
        if self.settings.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(learning, self.settings.clip_norm, norm)
        if not math.isfinite(float(norm)):  # the one place in a step that waits for the device
            for loss, part in zip(losses, parts, strict=True):
                if not math.isfinite(float(loss)):
                    raise NotFinite("loss", float(loss), part, updated=self.updated)
            raise NotFinite("gradient", float(norm), parts[-1], updated=self.updated)
        self._add({self.column("grad_norm", phase): norm.double()}, phase.repeat)
        self.optimizers[phase.optimizer].step()
        self.updated = True
        if phase.after is not None:
            phase.after(self.bare)
        self.optimizers[phase.optimizer].zero_grad(set_to_none=True)

    def _rest_below_head(self) -> None:
        """The statistics of norms below the head stay as they are, too."""
        below = set(self.below_head)
        for module in self.bare.modules():
            own = list(module.parameters(recurse=False))
            if own and below.issuperset(own):
                module.eval()

    def _enable_gradients(self, phase: Phase) -> list[nn.Parameter]:
        """The parameters that this phase updates. With several phases, no gradient is computed for the others."""
        if len(self.phases) == 1:
            return list(self.learning.values())
        for name, parameter in self.learning.items():
            parameter.requires_grad_(name.startswith(phase.parameters))
        return [parameter for parameter in self.learning.values() if parameter.requires_grad]

    def _accumulate(self, phase: Phase, parts: list[Any], step: int) -> list[Tensor]:
        """Add up the gradients of the micro-batches; returns the loss of each."""
        losses = []
        for number, batch in enumerate(parts, 1):
            sync = (
                self.fabric.no_backward_sync(self.model, enabled=number < len(parts)) if self.hooked else nullcontext()
            )
            with sync:
                with self.fabric.autocast():
                    loss, metrics = phase.loss(self.model, batch, step)
                self.fabric.backward(loss / len(parts))
            losses.append(loss.detach())
            found = {self.column("loss", phase): losses[-1], **metrics}
            self._add({key: value.double() for key, value in found.items()}, len(parts) * phase.repeat)
        if not self.hooked and self.fabric.world_size > 1:
            for parameter in self.learning.values():
                if parameter.grad is not None:
                    parameter.grad.copy_(self.fabric.all_reduce(parameter.grad, reduce_op="mean"))  # type: ignore[arg-type]
        return losses

    def _add(self, metrics: Mapping[str, Tensor], count: int) -> None:
        """Add metrics, of which `count` make up a step, to those of this step."""
        for key, value in metrics.items():
            self.metrics[key] = self.metrics[key] + value / count if key in self.metrics else value / count

    def _seed(self, step: int) -> None:
        """Dropout and its kin become a function of the step."""
        seed = (self.settings.seed << 32) + (self.fabric.global_rank << 48) + step
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also ask every other backend, each step
        if self.fabric.device.type == "cuda":
            torch.cuda.manual_seed(seed)


def _prefixes(phases: Sequence[Phase], optimizer: str) -> tuple[str, ...]:
    """The prefixes of all parameters that an optimizer's phases update."""
    return tuple(prefix for phase in phases if phase.optimizer == optimizer for prefix in phase.parameters)


def _span(phases: Sequence[Phase], optimizer: str) -> tuple[int, int | None]:
    """From the first step of an optimizer's phases to the end of their last; None is the end of the training."""
    own = [phase for phase in phases if phase.optimizer == optimizer]
    ends = [phase.ends for phase in own if phase.ends is not None]
    return min(phase.begins for phase in own), max(ends) if len(ends) == len(own) else None
