"""The optimizer's groups, the schedule of its rate, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from orchard.training.settings import OptimizerSettings, ScheduleSettings


def build_optimizer(
    model: nn.Module, settings: OptimizerSettings, learns: tuple[str, ...] = ("",)
) -> torch.optim.Optimizer:
    """AdamW or SGD over the parameters that learn and whose names begin with one of `learns`.

    Weight decay falls on matrices and kernels only. With `layer_decay` d, the rate of the layer k steps below
    the head is multiplied by d**k (arXiv:1801.06146, section 3.2, as BERT-like models use it).
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or not name.startswith(learns):
            continue
        decay = settings.weight_decay if parameter.ndim > 1 and name.endswith("weight") else 0.0
        scale = settings.layer_decay ** _layers_below_head(model, name) if settings.layer_decay < 1 else 1.0
        group = groups.setdefault((decay, scale), {"params": [], "weight_decay": decay, "scale": scale})
        group["params"].append(parameter)
    rows = list(groups.values())
    if settings.name == "sgd":
        return torch.optim.SGD(
            rows,
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.momentum > 0,
            fused=True,
        )
    return torch.optim.AdamW(rows, lr=settings.lr, betas=(settings.momentum, settings.beta2), fused=True)


def _layers_below_head(model: nn.Module, name: str) -> int:
    groups: Sequence[tuple[str, ...]] = model.layer_groups()  # type: ignore[operator]
    for depth, prefixes in enumerate(reversed(groups)):
        if name.startswith(prefixes):
            return depth
    raise ValueError(f"layer_groups of {type(model).__name__} does not cover {name}")


def rate_at(step: int, steps: int, warmup: int, settings: ScheduleSettings, spent: float = 0.0) -> float:
    """The share of the largest rate at `step` of `steps`.

    `spent` is the share of the allowed time that is over, where there is such a limit: the rate falls with
    whichever is further on.
    """
    progress = max((step - warmup) / max(steps - warmup, 1), spent)
    rising = (step + 1) / (warmup + 1)
    if settings.name == "constant":
        return min(rising, 1.0)
    falling = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    return min(rising, settings.final_fraction + (1 - settings.final_fraction) * falling)


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


def average_of(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of weights and buffers. Early on the decay is less, (1 + n) / (10 + n), so that
    the first random weights are soon forgotten."""

    @torch.no_grad()
    def update(averaged: Any, current: Any, count: Any) -> None:
        n = int(count)
        share = 1 - min(decay, (1 + n) / (10 + n))
        if torch.is_floating_point(averaged[0]):
            torch._foreach_lerp_(averaged, current, share)
        else:
            for old, new in zip(averaged, current, strict=True):
                old.copy_(new)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def optimizer_tensors(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The optimizers' memory by parameter name: `exp_avg|blocks.0.norm1.weight`, ..."""
    return {
        f"{key}|{name}": value
        for optimizer in optimizers
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_optimizer_tensors(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], tensors: dict[str, Tensor]
) -> None:
    """The inverse of `optimizer_tensors`."""
    parameters = dict(model.named_parameters())
    owner = {p: o for o in optimizers for group in o.param_groups for p in group["params"]}
    for key, value in tensors.items():
        kind, name = key.split("|", 1)
        parameter = parameters[name]
        home = value if kind == "step" else value.to(parameter.device)
        if value.shape == parameter.shape:  # memory lies as its parameter lies, channels-last or not
            home = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        owner[parameter].state[parameter][kind] = home
