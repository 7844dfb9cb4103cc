"""Actor-critics: a policy learns from what it has just done, by what its critic had expected (A2C, PPO)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from orchard.data.counter_rng import COLUMNS
from orchard.data.open_environment import EnvironmentData
from orchard.errors import UsageError
from orchard.tasks.reinforcement_learning.families import Training
from orchard.tasks.reinforcement_learning.feed import EnvironmentFeed
from orchard.tasks.reinforcement_learning.learner import AgentLearner
from orchard.tasks.reinforcement_learning.policy_agent import PolicyAgent
from orchard.tasks.reinforcement_learning.policy_losses import LOSSES, Judged
from orchard.tasks.reinforcement_learning.rollout_feed import RolloutFeed
from orchard.tasks.reinforcement_learning.rollouts import Experience
from orchard.tasks.reinforcement_learning.settings import PolicySettings, Settings
from orchard.training.phases import Phase

NEEDS = "a policy and values of states (A2C, PPO)"
CURVES = (
    ("Policy", "policy_loss", "loss of the policy"),
    ("Critic", "value_loss", "mean squared error of the values"),
    ("Entropy", "entropy", "how open the policy's choice is, in nats"),
    ("Change of the policy", "kl", "estimated divergence from the one that acted"),
)


class PolicyGradient:
    """The loss of a policy and its critic, by the settings. `feed` tells how the agent fares while it learns."""

    logged: Sequence[str] = (
        "mean_return", "mean_length", "training_return", "policy_loss", "value_loss", "entropy", "kl", "clipped",
    )  # fmt: skip

    def __init__(self, settings: PolicySettings, feed: EnvironmentFeed):
        self.settings, self.feed = settings, feed
        self.phases = (Phase("", self.loss, ("network.",)),)

    def loss(self, learner: Any, batch: Experience, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Policy's loss + `value_weight` · critic's - `entropy_weight` · entropy, all means over the steps."""
        s = self.settings
        now = judge(learner.network, batch)
        terms = LOSSES[s.loss](now, batch, s)
        entropy = now.entropies.mean()
        figures = {
            "policy_loss": terms.policy.detach(),
            "value_loss": terms.value.detach(),
            "entropy": entropy.detach(),
            "training_return": torch.tensor(self.feed.lately()),
            **terms.figures,
        }
        return terms.policy + s.value_weight * terms.value - s.entropy_weight * entropy, figures


def judge(network: Any, batch: Experience) -> Judged:
    """What the network says now of the steps in a batch; of sequences, of all steps one after the other."""
    actions = batch.actions
    if network.memory is None:
        decision = network(batch.observations)
    else:
        decision = network.unroll(batch.observations, batch.memory, batch.began)
        actions = actions.flatten(0, 1)
    return Judged(decision.log_probability(actions).float(), decision.entropy().float(), decision.values.float())


def suits(network: nn.Module) -> bool:
    return all(hasattr(network, name) for name in ("policy", "value", "memory", "begin"))


def start(network: nn.Module, data: EnvironmentData, settings: Settings) -> Training:
    if data.continuous and data.actions > COLUMNS:
        raise UsageError(f"{data.source} takes {data.actions} real numbers for an action, expected {COLUMNS} at most")
    feed = RolloutFeed(network, data, settings)
    return Training(AgentLearner(network), feed, PolicyGradient(settings.policy, feed))


def agent(network: nn.Module, count: int, sampled: bool) -> PolicyAgent:
    return PolicyAgent(network, count, sampled)
