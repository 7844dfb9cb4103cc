"""Which objective a model learns from, and what every family of objectives offers the rest of the task.

A family is a module of this folder (paired.py, ...). It knows its models by what they offer, never by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol, cast

from torch import nn

from orchard.errors import UsageError
from orchard.report.run_page import Curve
from orchard.tasks.base import Objective as BaseObjective
from orchard.tasks.image_to_image.settings import Settings
from orchard.tasks.unconditional_image_generation.learner import GenerationLearner

FAMILIES = ("paired", "attention", "unpaired")  # the first that suits


class Objective(BaseObjective, Protocol):
    """Phases over a `GenerationLearner`, and what is to be said of them."""

    @property
    def curves(self) -> Sequence[Curve]: ...  # of the report; their columns are logged
    def describe(self) -> str: ...


class Family(Protocol):
    """What a module of a family has."""

    NEEDS: str  # of a model, in words
    PAIRED: bool  # does it learn from pairs?
    METRIC: str  # the task's metric of its trainings
    METRICS: tuple[str, ...]  # all that an evaluation gives
    NETWORKS: tuple[str, ...]  # what official files call the networks, the first generator first

    def suits(self, model: nn.Module) -> bool:
        """Can this model learn so?"""

    def make_objective(self, settings: Settings, model: nn.Module) -> Objective: ...
    def make_learner(self, model: nn.Module, settings: Settings) -> GenerationLearner: ...


def family_of(model: nn.Module) -> Family:
    """The first family that suits a model; UsageError where none does."""
    families = [cast(Family, importlib.import_module(f"{__package__}.{name}")) for name in FAMILIES]
    for family in families:
        if family.suits(model):
            return family
    needs = " or ".join(family.NEEDS for family in families)
    raise UsageError(f"{type(model).__name__} translates no images; expected a model with {needs}")
