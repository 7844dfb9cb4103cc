"""What a policy and its critic learn from steps that were taken: A2C's loss and PPO's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from orchard.tasks.reinforcement_learning.rollouts import Experience
from orchard.tasks.reinforcement_learning.settings import PolicySettings


@dataclass(frozen=True)
class Judged:
    """What the network says now of B steps: how likely they are, how open its choice is, what the states are worth."""

    log_probabilities: Tensor  # (B,)
    entropies: Tensor  # (B,)
    values: Tensor  # (B,)


@dataclass(frozen=True)
class Terms:
    """The parts of a loss, scalars, and what else is worth knowing."""

    policy: Tensor
    value: Tensor
    figures: Mapping[str, Tensor] = field(default_factory=dict)


def a2c_terms(now: Judged, taken: Experience, settings: PolicySettings) -> Terms:
    """- mean of A log π(a), and the mean of (R - V)² (Mnih et al. 2016, section 4)."""
    policy = -(taken.advantages.flatten() * now.log_probabilities).mean()
    return Terms(policy, (taken.returns.flatten() - now.values).square().mean())


def released_a2c_terms(now: Judged, taken: Experience, settings: PolicySettings) -> Terms:
    """The same as DeepChem's released code has it: of every pair of steps, the advantage (the value) of one and the
    probability (the return) of another, as its arrays (T, 1) and (T,) are broadcast."""
    policy = -(taken.advantages.flatten()[:, None] * now.log_probabilities).mean()
    return Terms(policy, (taken.returns.flatten() - now.values[:, None]).square().mean())


def ppo_terms(now: Judged, taken: Experience, settings: PolicySettings) -> Terms:
    """The clipped surrogate (Schulman et al. 2017, equation 7) and the mean of (R - V)².

    With `clip_values` the critic, too, gains nothing from moving its value further than `clip` from what it was
    (OpenAI Baselines, ppo2).
    """
    clip = settings.clip
    advantages, returns, before = (tensor.flatten() for tensor in (taken.advantages, taken.returns, taken.values))
    log_ratio = now.log_probabilities - taken.log_probabilities.flatten()
    ratio = log_ratio.exp()
    policy = -torch.minimum(advantages * ratio, advantages * ratio.clamp(1 - clip, 1 + clip)).mean()
    errors = (returns - now.values).square()
    if settings.clip_values:
        held = before + (now.values - before).clamp(-clip, clip)
        errors = torch.maximum(errors, (returns - held).square())
    with torch.no_grad():
        figures = {
            "kl": (ratio - 1 - log_ratio).mean(),  # an estimate that is never negative
            "clipped": ((ratio - 1).abs() > clip).float().mean(),
        }
    return Terms(policy, errors.mean(), figures)


LOSSES: dict[str, Callable[[Judged, Experience, PolicySettings], Terms]] = {
    "a2c": a2c_terms,
    "a2c_released": released_a2c_terms,
    "ppo": ppo_terms,
}
