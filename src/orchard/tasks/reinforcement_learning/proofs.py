"""The losses of actor-critics as the proofs of cards call them: steps that were taken are given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from orchard.tasks.reinforcement_learning.on_policy import judge
from orchard.tasks.reinforcement_learning.policy_losses import a2c_terms, ppo_terms, released_a2c_terms
from orchard.tasks.reinforcement_learning.rollouts import Experience, normalised
from orchard.tasks.reinforcement_learning.settings import PolicySettings


def deepchem_losses(
    model: Any, observations: Tensor, memory: Tensor, began: Tensor, actions: Tensor, advantages: Tensor,
    returns: Tensor,
) -> dict[str, Tensor]:  # fmt: skip
    """DeepChem's loss as it was released, and as it was meant, of one sequence (1, T, ...): the weights of values and
    entropy are 1 and 0.01."""
    none = torch.zeros_like(advantages)
    batch = Experience(observations, actions[None], none, none, advantages, returns, began, memory)
    now, settings = judge(model, batch), PolicySettings()
    kinds = {"released": released_a2c_terms, "corrected": a2c_terms}
    terms = {name: kind(now, batch, settings) for name, kind in kinds.items()}
    return {name: one.policy + one.value - 0.01 * now.entropies.mean() for name, one in terms.items()}


def cleanrl_losses(
    model: Any, observations: Tensor, actions: Tensor, log_probabilities: Tensor, values: Tensor, advantages: Tensor,
    returns: Tensor, settings: PolicySettings | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """The terms of CleanRL's ppo_atari.py, whose critic's loss has a factor of 1/2; of a whole rollout, flat."""
    s = settings or PolicySettings(clip=0.1, clip_values=True, value_weight=0.25)
    none = torch.zeros(len(actions), 0)
    batch = Experience(observations, actions, log_probabilities, values, advantages, returns, none, none)
    now = judge(model, batch)
    terms = ppo_terms(now, normalised(batch) if s.normalise_advantages else batch, s)
    entropy = now.entropies.mean()
    loss = terms.policy + s.value_weight * terms.value - s.entropy_weight * entropy
    return {"policy": terms.policy, "value": terms.value / 2, "entropy": entropy, "loss": loss, **terms.figures}
