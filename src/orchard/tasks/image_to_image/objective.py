"""Which objective a model learns from, and what every family of objectives offers the rest of the task.

A family is a module of this folder (paired.py, ...). It knows its models by what they offer, never by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import torch
from torch import nn

from orchard.errors import UsageError
from orchard.models import create_model
from orchard.report.run_page import Curve
from orchard.tasks.base import Objective as BaseObjective
from orchard.tasks.image_to_image.settings import Settings
from orchard.tasks.unconditional_image_generation.learner import GenerationLearner

FAMILIES = (  # the first that suits: special ones come first
    "inpainting", "adversarial_inpainting", "colouring", "paired", "attention", "unpaired",
)  # fmt: skip


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
    NETWORKS: Mapping[str, str]  # what official files call the networks, the first generator first: before their names

    def suits(self, model: nn.Module) -> bool:
        """Can this model learn so?"""

    def make_objective(self, settings: Settings, model: nn.Module) -> Objective: ...
    def make_learner(self, model: nn.Module, settings: Settings) -> GenerationLearner: ...


def data_of(name: str) -> str | None:
    """The kind of data that a variant learns from where it is neither pairs nor two sets."""
    with torch.device("meta"):
        return "pictures" if hasattr(family_of(create_model(name)), "make_given") else None


def family_of(model: nn.Module) -> Family:
    """The first family that suits a model; UsageError where none does."""
    families = [cast(Family, importlib.import_module(f"{__package__}.{name}")) for name in FAMILIES]
    for family in families:
        if family.suits(model):
            return family
    needs = " or ".join(family.NEEDS for family in families)
    raise UsageError(f"{type(model).__name__} translates no images; expected a model with {needs}")
