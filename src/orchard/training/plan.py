"""Before the first step: how large, how much memory, how long."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

from orchard.training.loop import Trainer
from orchard.training.settings import TrainSettings

PROBE = 8  # samples whose step is tried; what they cost is scaled up


@dataclass(frozen=True)
class Plan:
    """What a training will take: parameters, bytes on the device, seconds of optimizer steps."""

    parameters: int
    memory: float
    available: float
    seconds: float
    limit: float | None  # seconds allowed
    settings: TrainSettings
    cut: bool  # whether a batch may be cut into micro-batches

    def words(self) -> str:
        seconds = min(self.seconds, self.limit or math.inf)
        minutes = f"about {seconds / 60:.0f} minutes" if seconds > 90 else f"about {seconds:.0f} seconds"
        return (
            f"{self.parameters:,} parameters, about {self.memory / 1e9:.2f} GB of memory "
            f"({self.available / 1e9:.1f} GB are free), {minutes} of training"
        )

    def warnings(self) -> list[str]:
        """What will not fit, and what to do about it."""
        found = []
        if self.memory > self.available:
            found.append(
                f"this needs about {self.memory / 1e9:.1f} GB and {self.available / 1e9:.1f} GB are free; try "
                + less_memory(self.settings, cut=self.cut)
            )
        if self.limit and self.seconds > self.limit:
            epochs = self.settings.epochs * self.limit / self.seconds
            found.append(
                f"the time allowed is enough for about {epochs:.1f} epochs; the learning rate falls accordingly"
            )
        return found


def less_memory(settings: TrainSettings, *, cut: bool) -> str:
    """What to say to a training that would then need about half the memory."""
    smaller = f"--set batch_size={max(settings.batch_size // 2, 1)}"
    return f"--set accumulate={settings.accumulate * 2}, which learns the same, or {smaller}" if cut else smaller


def make_plan(trainer: Trainer, *, cut: bool) -> Plan:
    """Try one forward and backward pass of a copy on a few samples of the first batch, and scale it up."""
    settings, model = trainer.settings, trainer.stepper.bare
    device = next(model.parameters()).device
    batch, last = trainer.feed.example(), max(trainer.steps - 1, 0)  # what joins later (a discriminator) is there then
    phases = [phase for phase in trainer.phases if phase.lasts(last)]
    few = batch.parts(max(len(batch) // PROBE, 1))[0]
    probe = copy.deepcopy(model).train()
    held: dict[int, int] = {}
    own = {p.data_ptr() for p in probe.parameters()}

    def remember(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    def once() -> float:
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            losses = [phase.loss(probe, few, last)[0] for phase in phases]
        for loss in losses:
            loss.backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        once()
    seconds = min(once(), once())
    parameters = sum(p.numel() for p in model.parameters())
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    copies = 1 if settings.optimizer.name in ("sgd", "rmsprop", "adagrad") else 2
    weights = 4 * (parameters * (2 if settings.ema else 1) + learning * (1 + copies))
    memory = weights + sum(held.values()) * len(batch) / len(few)
    processes = settings.devices * settings.nodes
    if device.type == "cuda":
        available = float(torch.cuda.mem_get_info(device)[0])
    else:
        available = psutil.virtual_memory().available / settings.devices
    limit = settings.max_minutes * 60 if settings.max_minutes else None
    per_step = seconds * settings.batch_size / len(few) / processes
    return Plan(parameters, memory, available, per_step * (trainer.steps - trainer.state.step), limit, settings, cut)
