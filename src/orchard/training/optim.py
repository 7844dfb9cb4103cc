"""Optimizers and schedules by their published names, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from orchard.training.settings import OptimizerSettings, ScheduleSettings

# Modules whose weights (not biases) are decayed: those that multiply. Norms, single vectors and tables never are.
DECAYED = (nn.Linear, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.modules.conv._ConvNd)
TABLES = (nn.Embedding, nn.EmbeddingBag)


def build_optimizer(
    model: nn.Module, settings: OptimizerSettings, prefixes: tuple[str, ...] = ("",)
) -> torch.optim.Optimizer:
    """The optimizer over the parameters that learn and whose names begin with one of `prefixes`.

    With `layer_decay` d, the learning rate of the layer k steps below the head is multiplied by d**k (arXiv:1801.06146,
    section 3.2, as BERT-like models use it). `scales` multiplies that of the parameters whose names begin with a key.
    """
    decayed = decayed_names(model)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or not name.startswith(prefixes):
            continue
        decay = settings.weight_decay if name in decayed else 0.0
        scale = settings.layer_decay ** _layers_below_head(model, name) if settings.layer_decay < 1 else 1.0
        scale *= next((share for prefix, share in settings.scales.items() if name.startswith(prefix)), 1.0)
        group = groups.setdefault((decay, scale), {"params": [], "weight_decay": decay, "scale": scale})
        group["params"].append(parameter)
    return _make(list(groups.values()), settings)


def decayed_names(model: nn.Module) -> set[str]:
    """The parameters that weight decay applies to: matrices and kernels, decided by the type of their module.

    A parameter of another module is decayed if it is called `weight` and has more than one axis. A table that a head
    shares stays a table.
    """
    names = set()
    for prefix, module in model.named_modules():
        if isinstance(module, TABLES):
            continue
        known = isinstance(module, DECAYED)
        for name, parameter in module.named_parameters(prefix, recurse=False):
            last = name.rpartition(".")[2]
            if parameter.ndim > 1 and (last.startswith("weight") if known else last == "weight"):
                names.add(name)
    return names


def _make(groups: list[dict[str, Any]], s: OptimizerSettings) -> torch.optim.Optimizer:
    eps: dict[str, Any] = {} if s.eps is None else {"eps": s.eps}
    betas = (s.momentum, s.beta2)
    optim = torch.optim
    if s.name == "sgd":
        return optim.SGD(groups, lr=s.lr, momentum=s.momentum, nesterov=s.nesterov and s.momentum > 0, fused=True)
    if s.name in ("adam", "adamw"):
        kind = optim.Adam if s.name == "adam" else optim.AdamW
        return kind(groups, lr=s.lr, betas=betas, fused=True, **eps)
    if s.name == "adamax":
        return optim.Adamax(groups, lr=s.lr, betas=betas, **eps)
    if s.name == "rmsprop":
        return optim.RMSprop(groups, lr=s.lr, alpha=s.beta2, momentum=s.momentum, centered=s.centered, **eps)
    if s.name == "adadelta":
        return optim.Adadelta(groups, lr=s.lr, rho=s.beta2, **eps)
    if s.name == "adagrad":
        return optim.Adagrad(groups, lr=s.lr, **eps)
    if s.name == "asgd":
        return optim.ASGD(groups, lr=s.lr)
    return optim.Adafactor(groups, lr=s.lr)


def layer_groups(model: nn.Module) -> Sequence[tuple[str, ...]]:
    """Name prefixes of the parameters from the input to the head."""
    return model.layer_groups()  # type: ignore[operator, no-any-return]


def _layers_below_head(model: nn.Module, name: str) -> int:
    for depth, prefixes in enumerate(reversed(layer_groups(model))):
        if name.startswith(prefixes):
            return depth
    raise ValueError(f"layer_groups of {type(model).__name__} does not cover {name}")


def learning_rate_factor(
    step: int, steps: int, warmup: int, settings: ScheduleSettings, *, per_epoch: int = 1, spent: float = 0.0
) -> float:
    """The share of the largest learning rate at `step` of `steps`, of which the first `warmup` rise linearly.

    `spent` is the share of the allowed time that has passed, where there is such a limit: what falls with the progress
    of the training falls with whichever is further on.
    """
    s = settings
    progress = min(max((step - warmup) / max(steps - warmup, 1), spent, 0.0), 1.0)
    rising = (step + 1) / (warmup + 1)
    if s.name == "constant":
        return min(rising, 1.0)
    if s.name == "inverse_sqrt":  # arXiv:1706.03762, equation 3, as a share of its peak
        return min(rising, (max(warmup, 1) / (step + 1)) ** 0.5)
    if s.name == "step":
        return min(rising, 1.0) * float(s.gamma ** sum(step >= epoch * per_epoch for epoch in s.milestones))
    if s.name == "exponential":
        return min(rising, 1.0) * float(s.gamma ** (max(step - warmup, 0) / per_epoch))
    if s.name == "range_test":  # from the lowest rate to the highest, in steps that are equal factors
        return float(s.final_fraction ** (1 - min(step / max(steps - 1, 1), 1.0)))
    if s.name == "one_cycle":
        return _one_cycle(step, steps, warmup or round(0.3 * steps), spent)
    if s.name == "cosine":
        falling = 0.5 * (1 + math.cos(math.pi * progress))
    elif s.name == "constant_linear":  # as pix2pix and CycleGAN learn
        falling = min(2 * (1 - progress), 1.0)
    else:  # linear is a polynomial of power 1
        falling = (1 - progress) ** (s.power if s.name == "polynomial" else 1.0)
    return min(rising, s.final_fraction + (1 - s.final_fraction) * falling)


def _one_cycle(step: int, steps: int, peak: int, spent: float) -> float:
    """From 1/25 up to 1 at step `peak`, then down to 1/250,000, along half cosines (arXiv:1708.07120)."""

    def between(low: float, high: float, share: float) -> float:
        return low + (high - low) * 0.5 * (1 - math.cos(math.pi * share))

    if step < peak:
        return between(1 / 25, 1.0, step / peak)
    return between(1.0, 4e-6, min(max((step - peak) / max(steps - 1 - peak, 1), spent), 1.0))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
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


def optimizer_tensors(model: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The optimizers' state by parameter name: `exp_avg|blocks.0.norm1.weight`, ..."""
    return {
        f"{key}|{name}": value
        for optimizer in optimizers.values()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_optimizer_tensors(
    model: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer], tensors: Mapping[str, Tensor]
) -> None:
    """The inverse of `optimizer_tensors`."""
    parameters = dict(model.named_parameters())
    owner = owners(optimizers)
    for key, value in tensors.items():
        kind, name = key.split("|", 1)
        parameter = parameters[name]
        home = value if kind == "step" else value.to(parameter.device)
        if value.shape == parameter.shape:  # state lies as its parameter lies, channels-last or not
            home = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        owner[parameter].state[parameter][kind] = home


def owners(optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[Tensor, torch.optim.Optimizer]:
    """The optimizer of each parameter; ValueError where two have the same: their states could not be told apart."""
    found: dict[Tensor, torch.optim.Optimizer] = {}
    for name, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in found:
                    raise ValueError(
                        f"optimizer '{name}' has parameters that another has too; let the phases share one"
                    )
                found[parameter] = optimizer
    return found
