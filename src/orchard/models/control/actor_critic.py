"""The network of the actor-critic landmarks: which action to take, and what the state is worth.

The policy is a distribution over actions: numbered ones by their logits, continuous ones by a normal distribution with
a mean for each state and one standard deviation for all of them (Mnih et al. 2016, arXiv:1602.01783, section 4;
Schulman et al. 2017, arXiv:1707.06347, section 6.1). Actor and critic share what reads the observation, or each has
its own. A memory (GRU) beside it lets both heads go by what was seen before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Rule
from orchard.nn.observer import Observer, ObserverConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "tanh": torch.tanh}


@dataclass(frozen=True)
class ActorCriticConfig(ObserverConfig):
    activation: Literal["relu", "tanh"] = "relu"
    shared: bool = True  # one observer for both heads; else the critic has its own
    memory: int = 0  # units of the GRU; the heads see the observer's features and the GRU's state side by side
    continuous: bool = False  # actions are `actions` real numbers, not one of so many
    start: Literal["orthogonal", "fan_in"] = "orthogonal"
    view: str = "grey"  # how the frames of a game are made: a `view` of orchard.data.open_environment

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory and not self.shared:
            raise ValueError("memory needs an observer that actor and critic share")


@dataclass(frozen=True)
class Decision:
    """What an actor-critic says of B observations.

    `policy` is (B, actions): the logarithms of the probabilities of numbered actions, or the means of continuous ones,
    whose `log_std` is then (actions,). `values` (B,) are what the states are worth, `memory` (B, units) the GRU's state
    after them.
    """

    policy: Tensor
    values: Tensor
    log_std: Tensor | None = None
    memory: Tensor | None = None

    def log_probability(self, actions: Tensor) -> Tensor:
        """Of actions (B,) int64, or (B, actions): (B,)."""
        if self.log_std is None:
            return self.policy.gather(1, actions[:, None]).squeeze(1)
        normal = (actions - self.policy) / self.log_std.exp()
        return (-0.5 * normal.square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(1)

    def entropy(self) -> Tensor:
        """How open the choice is, in nats, (B,)."""
        if self.log_std is None:
            return -(self.policy.exp() * self.policy).sum(1)
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum().expand(len(self.policy))


class ActorCritic(nn.Module):
    """Observations (B, *observation) → `Decision`. What observations are, `Observer` says."""

    def __init__(self, config: ActorCriticConfig):
        super().__init__()
        self.config = c = config
        self.observer = Observer(c, ACTIVATIONS[c.activation])
        self.critic_observer = None if c.shared else Observer(c, ACTIVATIONS[c.activation])
        width = self.observer.features
        self.memory = nn.GRUCell(width, c.memory) if c.memory else None
        self.policy = nn.Linear(width + c.memory, c.actions)
        self.value = nn.Linear(width + c.memory, 1)
        self.log_std = nn.Parameter(torch.zeros(c.actions)) if c.continuous else None
        if c.start == "orthogonal":
            self._start_orthogonal()

    def _start_orthogonal(self) -> None:
        """Weights orthogonal, of gain √2, of the heads 0.01 (policy) and 1 (value); biases zero (CleanRL, ppo.py)."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                gain = 0.01 if module is self.policy else 1.0 if module is self.value else math.sqrt(2)
                nn.init.orthogonal_(module.weight, gain)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, observations: Tensor, memory: Tensor | None = None) -> Decision:
        """One step of each of B agents. Without `memory` (B, units) that of the beginning, zeros, is taken."""
        features = self.observer(observations)
        if self.memory is not None:
            memory = self.memory(features, self.begin(len(features)) if memory is None else memory)
            features = torch.cat((features, memory), dim=1)
        critic = features if self.critic_observer is None else self.critic_observer(observations)
        return self._decide(features, critic, memory if self.memory is not None else None)

    def unroll(self, observations: Tensor, memory: Tensor, began: Tensor) -> Decision:
        """T steps of each of B agents with a memory, (B, T, *observation), as one `Decision` of B · T.

        `memory` (B, units) is the state before them, and `began` (B, T) is true where a new episode begins, before
        which everything is forgotten. The state after them is in the answer.
        """
        assert self.memory is not None, "this network has no memory"
        steps = self.observer(observations.flatten(0, 1)).unflatten(0, observations.shape[:2])
        seen = []
        for features, new in zip(steps.unbind(1), began.unbind(1), strict=True):
            memory = self.memory(features, memory * (~new)[:, None])
            seen.append(torch.cat((features, memory), dim=1))
        features = torch.stack(seen, dim=1).flatten(0, 1)
        return self._decide(features, features, memory)

    def _decide(self, actor: Tensor, critic: Tensor, memory: Tensor | None) -> Decision:
        policy = self.policy(actor)
        if self.log_std is None:
            policy = policy.log_softmax(-1)
        return Decision(policy, self.value(critic).squeeze(-1), self.log_std, memory)

    def policy_of(self, observations: Tensor, memory: Tensor | None = None) -> Tensor:
        """`Decision.policy` alone, for programs that act."""
        return self(observations, memory).policy  # type: ignore[no-any-return]

    def memory_after(self, observations: Tensor, memory: Tensor) -> Tensor:
        """`Decision.memory` alone, for programs that act."""
        return self(observations, memory).memory  # type: ignore[no-any-return]

    def begin(self, count: int) -> Tensor:
        """What `count` agents remember before their first step: nothing, (count, units)."""
        return self.value.weight.new_zeros(count, self.config.memory)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the heads, for layer-wise learning rates."""
        groups = [(name, f"critic_{name}") for (name,) in self.observer.observer_groups("observer.")]
        return [*groups, ("memory.",), ("policy.", "value.", "log_std")]


def example(config: ActorCriticConfig, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Observations as float in [0, 1]."""
    return {"observations": torch.rand(count, *config.observation, generator=generator)}


def sb3_names(config: ActorCriticConfig) -> list[tuple[str, str]]:
    """Stable-Baselines3, policy.pth of ActorCriticPolicy; the extractor of frames stands there three times."""
    if config.channels:
        parts = [(f"convolutions.{n}", f"cnn.{2 * n}") for n in range(len(config.channels))]
        parts += [(f"hidden.{n}", f"linear.{2 * n}") for n in range(len(config.hidden))]
        names = [(f"observer.{ours}.{{}}", f"features_extractor.{theirs}.{{}}") for ours, theirs in parts]
    else:
        names = [
            (f"{ours}.hidden.{n}.{{}}", f"mlp_extractor.{theirs}.{2 * n}.{{}}")
            for ours, theirs in (("observer", "policy_net"), ("critic_observer", "value_net"))
            for n in range(len(config.hidden))
        ]
    return [*names, ("policy.{}", "action_net.{}"), ("value.{}", "value_net.{}"), ("log_std", "log_std")]


def cleanrl_names(config: ActorCriticConfig) -> list[Rule | tuple[str, str]]:
    """vwxyzjn/cleanrl: ppo.py, ppo_continuous_action.py and ppo_atari.py, whose Sequentials number activations too."""
    hidden, convolutions = len(config.hidden), len(config.channels)
    if config.shared:
        first = 2 * convolutions + (1 if convolutions else 0)
        names: list[Rule | tuple[str, str]] = [
            (f"observer.convolutions.{n}.{{}}", f"network.{2 * n}.{{}}") for n in range(convolutions)
        ]
        names += [(f"observer.hidden.{n}.{{}}", f"network.{first + 2 * n}.{{}}") for n in range(hidden)]
        return [*names, ("policy.{}", "actor.{}"), ("value.{}", "critic.{}")]
    actor = "actor_mean" if config.continuous else "actor"
    names = [(f"observer.hidden.{n}.{{}}", f"{actor}.{2 * n}.{{}}") for n in range(hidden)]
    names += [(f"critic_observer.hidden.{n}.{{}}", f"critic.{2 * n}.{{}}") for n in range(hidden)]
    deviation = Rule("log_std", ("actor_logstd",), lambda row: row.squeeze(0), lambda std: (std[None],))
    return [*names, ("policy.{}", f"{actor}.{2 * hidden}.{{}}"), ("value.{}", f"critic.{2 * hidden}.{{}}"), deviation]


FRAMES = (4, 84, 84)  # the last four, in grey
NAMES: dict[str, Callable[[ActorCriticConfig], Sequence[Rule | tuple[str, str]]]] = {
    "cleanrl": cleanrl_names,
    "sb3": sb3_names,
}
NOT_WEIGHTS = {"sb3": ("pi_features_extractor.*", "vf_features_extractor.*")}
