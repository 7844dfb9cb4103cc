"""Prune and retrain, share and retrain, encode."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchard.compression.deep_compression.pruning import mask, masks_by_sparsity, masks_by_std, prunable
from orchard.compression.deep_compression.settings import Settings
from orchard.compression.deep_compression.sharing import cluster, share, shared_weights
from orchard.compression.subject import Compressed, Subject
from orchard.weights.portable import Portable, save_encoded

CENTROIDS = 0.02  # of the learning rate: a centroid moves all of its weights at once


def run(subject: Subject, settings: Settings) -> Compressed:
    """The three stages of figure 1."""
    model, metric = subject.job.model, subject.job.metric
    stages: list[dict[str, Any]] = []

    def note(stage: str) -> float:
        weights = [weight_of(layer) for layer in prunable(model).values()]
        total, kept = sum(w.numel() for w in weights), sum(int(w.count_nonzero()) for w in weights)
        value = subject.validate(model)[metric.name]
        stages.append({"stage": stage, "weights": kept, "of all": kept / total, f"validation {metric.name}": value})
        return metric.score(value)

    note("trained")
    for number in range(1, settings.rounds + 1):
        layers = prunable(model)
        mask(layers, _masks({name: weight_of(layer) for name, layer in layers.items()}, settings, number))
        model = subject.retrain(f"prune-{number}", model)
        note(f"pruned, {number}")
    layers = prunable(model)
    share(layers, {name: cluster(weight_of(layer), _bits(layer, settings)) for name, layer in layers.items()})
    before, start = note("shared"), {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = subject.job.settings.optimizer
    slower = optimizer.model_copy(update={"lr": optimizer.lr * CENTROIDS})
    model = subject.retrain("share", model, changes={"optimizer": slower})
    if note("centroids trained") < before:  # by validation, as every choice is
        model.load_state_dict(start)
        note("centroids as they were")
    shared = shared_weights(prunable(model))
    facts: dict[str, Any] = {}

    def write(folder: Path, about: Portable) -> None:
        parts = save_encoded(folder, model, shared, about)
        facts["layers"] = {
            name: {"weights": weight.codes.numel(), "kept": int(weight.codes.count_nonzero()), **asdict(parts[name])}
            for name, weight in shared.items()
        }

    return Compressed(write, stages=tuple(stages), facts=facts)


@torch.no_grad()
def weight_of(layer: nn.Module) -> Tensor:
    """A layer's weight as it computes now."""
    weight: Any = layer.weight
    return weight.detach()  # type: ignore[no-any-return]


def _masks(weights: dict[str, Tensor], settings: Settings, number: int) -> dict[str, Tensor]:
    """What stays in this round. The share that stays falls by the same factor in every round."""
    if settings.std is not None:
        return masks_by_std(weights, settings.std)
    return masks_by_sparsity(weights, 1 - (1 - settings.sparsity) ** (number / settings.rounds))


def _bits(layer: nn.Module, settings: Settings) -> int:
    return settings.linear_bits if isinstance(layer, nn.Linear) else settings.conv_bits
