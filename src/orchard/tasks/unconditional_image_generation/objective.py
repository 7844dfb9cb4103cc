"""Which objective a model learns from, and what every family of objectives offers the rest of the task.

A family is a module of this folder (adversarial.py, ...). It knows its models by what they offer, never by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.errors import UsageError, unknown
from orchard.report.run_page import Curve
from orchard.tasks.base import Objective as BaseObjective
from orchard.tasks.unconditional_image_generation.settings import OBJECTIVES, NamedObjective, Options, Settings
from orchard.training.settings import OptimizerSettings, Resolved


class Objective(BaseObjective, Protocol):
    """Phases over a `GenerationLearner`, and what is to be said of them."""

    @property
    def curves(self) -> Sequence[Curve]: ...  # of the report; their columns are logged
    @property
    def memory(self) -> Mapping[str, Tensor]: ...  # what a learner keeps for it from step to step
    def describe(self) -> str: ...
    def optimizer_settings(self, name: str, common: OptimizerSettings) -> OptimizerSettings: ...


class Family(Protocol):
    """What a module of a family has."""

    NEEDS: str  # of a model, in words

    def suits(self, model: nn.Module) -> bool:
        """Can this model learn so?"""

    def make_objective(self, settings: Settings, model: nn.Module) -> Objective:
        """The objective with the settings of the family's name; UsageError where they do not go with the model."""

    def measure(self, model: nn.Module, batches: Iterable[ImageBatch]) -> dict[str, float]:
        """Metrics of the family's own, of real images."""

    def steps(self, model: nn.Module, options: Options) -> int:
        """In how many steps images are made; UsageError for options that do not go with the model."""

    def generate(
        self, model: nn.Module, seed: int, numbers: Sequence[int], options: Options, labels: Sequence[int] = ()
    ) -> Iterator[Tensor]:
        """Images (N, C, H, W) in the model's `value_range` after every step; the last of them are done.

        Image n of a seed is the same whatever is made beside it. `labels` are the classes of a model that has such;
        without them, they come in turn.
        """


def family_named(name: str) -> Family:
    """One module of this folder."""
    return cast(Family, importlib.import_module(f"{__package__}.{name}"))


def family_of(model: nn.Module) -> Family:
    """The family that knows how to make images with a model; UsageError where none does."""
    families = [family_named(name) for name in dict.fromkeys(named.family for named in OBJECTIVES.values())]
    for family in families:
        if family.suits(model):
            return family
    needs = " or ".join(family.NEEDS for family in families)
    raise UsageError(f"{type(model).__name__} makes no images; expected a model with {needs}")


def make_images(
    model: nn.Module,
    seed: int,
    numbers: Sequence[int],
    options: Options,
    watch: Callable[[int], None] | None = None,
    labels: Sequence[int] = (),
) -> Tensor:
    """Images (N, C, H, W) by the model's family; `watch` is told the number of every step when it is done."""
    images = torch.empty(0)
    made = family_of(model).generate(model, seed, numbers, options, labels)
    for step, images in enumerate(made, 1):  # noqa: B007 the last
        if watch is not None:
            watch(step)
    return images


def settle_objective(resolved: Resolved, model: nn.Module) -> Resolved:
    """The settings with what the named objective says, where the command and the recipe say nothing.

    Without a name, that of the model's paper, else the first that suits it. Raises UsageError for an unknown name and
    for an objective that the model cannot learn from.
    """
    settings = cast(Settings, resolved.settings)
    if settings.objective is None:
        family = family_of(model)
        suitable = (name for name, named in OBJECTIVES.items() if family_named(named.family) is family)
        name = str(getattr(model, "objective", None) or next(suitable))
        resolved = resolved.choose("objective", name, "chosen: what fits the model")
    name = str(cast(Settings, resolved.settings).objective)
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    named = OBJECTIVES[name]
    if not family_named(named.family).suits(model):
        needs = family_named(named.family).NEEDS
        raise UsageError(f"setting 'objective': {name} needs a model with {needs}; {settings.model} is none")
    return _fill(resolved, name, named)


def _fill(resolved: Resolved, name: str, named: NamedObjective) -> Resolved:
    """The values of an objective in the settings, but for those that were given.

    A recipe's optimizer suits the recipe's objective: one that the command names brings its own.
    """
    group, origins = getattr(resolved.settings, named.family), resolved.origins
    left_open = {key: value for key, value in named.values.items() if key not in group.model_fields_set}
    values = {f"{named.family}.{key}": value for key, value in left_open.items()}
    kept = {"command"} if origins.get("objective") == "command" else set(origins.values())
    optimizer = {f"optimizer.{key}": value for key, value in named.optimizer.items()}
    values |= {key: value for key, value in optimizer.items() if origins.get(key) not in kept}
    for key, value in values.items():
        resolved = resolved.choose(key, value, f"objective {name}")
    return resolved
