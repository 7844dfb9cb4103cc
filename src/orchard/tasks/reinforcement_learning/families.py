"""Which way an agent learns, and what every such family offers the rest of the task.

A family is a module of this folder. It knows its networks by what they offer, never by name.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Protocol, cast

from torch import nn

from orchard.data.open_environment import EnvironmentData
from orchard.errors import UsageError
from orchard.tasks.base import Objective
from orchard.tasks.reinforcement_learning.acting import Agent
from orchard.tasks.reinforcement_learning.feed import EnvironmentFeed
from orchard.tasks.reinforcement_learning.learner import AgentLearner
from orchard.tasks.reinforcement_learning.settings import Settings

FAMILIES = ("q_learning", "on_policy")


@dataclass(frozen=True)
class Training:
    """What a family makes of a network, an environment and the settings."""

    learner: AgentLearner
    feed: EnvironmentFeed
    objective: Objective


class Family(Protocol):
    """What a module of a family has."""

    NEEDS: str  # of a network, in words
    CURVES: tuple[tuple[str, str, str], ...]  # of the report: title, column of the log, note

    def suits(self, network: nn.Module) -> bool:
        """Can this network learn so?"""

    def start(self, network: nn.Module, data: EnvironmentData, settings: Settings) -> Training:
        """UsageError for settings, or an environment, that do not go with the network."""

    def agent(self, network: nn.Module, count: int, sampled: bool) -> Agent:
        """The network at play in `count` environments: greedily, or `sampled` from its policy where it has one."""


def family_of(network: nn.Module) -> Family:
    """The family of a network; UsageError where none knows it."""
    families = [cast(Family, importlib.import_module(f"{__package__}.{name}")) for name in FAMILIES]
    for family in families:
        if family.suits(network):
            return family
    needs = " or ".join(family.NEEDS for family in families)
    raise UsageError(f"{type(network).__name__} is no agent; expected a network with {needs}")
