"""Prune and retrain, share and retrain, encode."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from orchard.compression.deep_compression.pruning import mask, masks_by_sparsity, masks_by_std, prunable
from orchard.compression.deep_compression.settings import Settings
from orchard.compression.deep_compression.sharing import cluster, share
from orchard.compression.subject import Compressed, Subject


def run(subject: Subject, settings: Settings) -> Compressed:
    """The three stages of figure 1."""
    model, metric = subject.job.model, subject.job.metric.name
    stages: list[dict[str, Any]] = []

    def note(stage: str) -> None:
        weights = [layer.weight for layer in prunable(model).values()]
        total, kept = sum(w.numel() for w in weights), sum(int(w.count_nonzero()) for w in weights)  # type: ignore[misc, operator]
        found = subject.validate(model)
        stages.append({"stage": stage, "weights": kept, "of all": kept / total, f"validation {metric}": found[metric]})

    note("trained")
    for number in range(1, settings.rounds + 1):
        layers = prunable(model)
        weights = {name: layer.weight.detach() for name, layer in layers.items()}  # type: ignore[union-attr, operator]
        mask(layers, _masks(weights, settings, number))
        model = subject.retrain(f"prune-{number}", model)
        note(f"pruning {number}")
    layers = prunable(model)
    clusters = {name: cluster(layer.weight.detach(), _bits(layer, settings)) for name, layer in layers.items()}  # type: ignore[union-attr, operator, arg-type]
    share(layers, clusters)
    note("shared weights")
    optimizer = subject.job.settings.optimizer
    slower = optimizer.model_copy(update={"lr": optimizer.lr * CENTROIDS})
    model = subject.retrain("share", model, changes={"optimizer": slower})
    note("trained centroids")
    for layer in prunable(model).values():
        parametrize.remove_parametrizations(layer, "weight")
    return Compressed.plain(model, stages=tuple(stages))


CENTROIDS = 0.1  # of the learning rate: a centroid moves all of its weights at once


def _masks(weights: dict[str, Tensor], settings: Settings, number: int) -> dict[str, Tensor]:
    """What stays in this round. The share that stays falls by the same factor in every round."""
    if settings.std is not None:
        return masks_by_std(weights, settings.std)
    return masks_by_sparsity(weights, 1 - (1 - settings.sparsity) ** (number / settings.rounds))


def _bits(layer: nn.Module, settings: Settings) -> int:
    return settings.linear_bits if isinstance(layer, nn.Linear) else settings.conv_bits
