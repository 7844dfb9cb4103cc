"""Layer by layer before the labels: the training phases of a model whose layers can be pretrained.

Such a model has `pretraining_layers`, the name prefixes of each layer's parameters in the order in which they learn,
and `pretraining_loss(layer, images, k)`, which gives the layer's loss and its reconstruction error.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol, cast

from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.errors import UsageError
from orchard.tasks.image_classification.settings import PretrainingSettings
from orchard.training.phases import Phase
from orchard.training.settings import OptimizerSettings, Resolved

NAME = "pretraining"  # of the phases; that of their optimizers, with the number of the layer
ERROR = "reconstruction_error"  # the column of log.csv


class Pretrained(Protocol):
    """What is asked of a model."""

    pretraining_layers: tuple[str, ...]

    def pretraining_loss(self, layer: int, images: Tensor, k: int) -> tuple[Tensor, Tensor]: ...


def has_pretraining(model: nn.Module) -> bool:
    return hasattr(model, "pretraining_layers")


def refuse_pretraining(resolved: Resolved, model: nn.Module) -> None:
    """UsageError where pretraining is asked for of a model that has none."""
    for key, origin in resolved.origins.items():
        if key.startswith(f"{NAME}.") and origin == "command" and not has_pretraining(model):
            raise UsageError(f"setting '{key}': {resolved.settings.model} has no layers to pretrain; leave it out")


def with_pretraining(
    phases: tuple[Phase, ...], model: nn.Module, settings: PretrainingSettings, steps_per_epoch: int
) -> tuple[Phase, ...]:
    """`phases`, after those of every layer of a model that has such; at once where there are no epochs of pretraining.

    A model with layers to pretrain has parameters that classifying does not use: its gradients do not come through
    the module's own hooks, which would wait for all.
    """
    if not has_pretraining(model):
        return phases
    steps, prefixes = round(settings.epochs * steps_per_epoch), cast(Pretrained, model).pretraining_layers
    layers = tuple(
        Phase(
            NAME, _layer_loss(layer, settings.k), (prefix,), f"{NAME}.{layer}",
            begins=layer * steps, ends=(layer + 1) * steps,
        )
        for layer, prefix in enumerate(prefixes)
        if steps
    )  # fmt: skip
    return (*(replace(phase, begins=len(layers) * steps, through_forward=False) for phase in phases), *layers)


def _layer_loss(layer: int, k: int) -> Any:
    def loss(model: nn.Module, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        found, error = cast(Pretrained, model).pretraining_loss(layer, batch.images, k)
        return found, {ERROR: error.detach()}

    return loss


def optimizer_settings(name: str, common: OptimizerSettings, settings: PretrainingSettings) -> OptimizerSettings:
    """Those of the optimizer of that name: a layer's own learning rate, and all else as in fine-tuning."""
    return common.model_copy(update={"lr": settings.lr}) if name.startswith(f"{NAME}.") else common


def remark(model: nn.Module, settings: PretrainingSettings, epochs: float) -> list[str]:
    """That no epoch is left for the labels, where that is so."""
    taken = settings.epochs * len(cast(Pretrained, model).pretraining_layers) if has_pretraining(model) else 0
    if not taken or taken < epochs:
        return []
    return [
        f"pretraining takes {taken:g} epochs and {epochs:g} are asked for in all: no class is learned. Set epochs to "
        f"more than {taken:g}, or train from this run with --from"
    ]
