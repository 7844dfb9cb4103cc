"""What the battery runs: every variant of every card on paper, and for real what is small enough."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from orchard.cards import all_cards, card_of
from orchard.models import create_model, landmark_of
from orchard.weights.official import preprocess_of
from orchard.weights.portable import Portable, architecture_of
from orchard.weights.reference import randomise

CARDS = all_cards()
VARIANTS = {name: variant for card in CARDS.values() for name, variant in card.variants.items()}
REFERENCES = [row for card in CARDS.values() for row in card.references]
CLASSIFIERS = [name for card in CARDS.values() if card.task == "image-classification" for name in card.variants]
MOST_PARAMETERS = 3e6  # of a variant that is run for real
MOST_MACS = {"image-classification": 60e6}  # and its multiply-adds; small convolutions take longer than matrices
MOST_MACS_ELSE = 125e6
FORBIDDEN = 1e30  # logits of what cannot come are larger than that in size, and no numbers to compute with

every_variant = pytest.mark.parametrize("name", VARIANTS)
every_classifier = pytest.mark.parametrize("name", CLASSIFIERS)


def example(name: str, config: Any, count: int) -> dict[str, Tensor]:
    """Arguments of `forward` by their names, always the same."""
    landmark: Any = landmark_of(name)
    inputs: dict[str, Tensor] = landmark.example(config, count, torch.Generator().manual_seed(1))
    if getattr(landmark.model, "value_range", None) == (0.0, 1.0):  # a density of pixels has no value outside
        inputs["images"] = inputs["images"].sigmoid()
    return inputs


def outputs(result: Any, name: str = "") -> dict[str, Tensor]:
    """Every tensor in what a model returned, by its path, such as `auxiliary.0.boxes`; of a tensor itself, no name."""
    if isinstance(result, Tensor):
        return {name: result}
    parts: dict[str, Any] = {}
    if isinstance(result, tuple | list):
        parts = {str(n): part for n, part in enumerate(result)}
    elif dataclasses.is_dataclass(result):
        parts = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    found: dict[str, Tensor] = {}
    for key, part in parts.items():
        found |= outputs(part, f"{name}.{key}" if name else key)
    return found


def numbers(result: Any) -> dict[str, Tensor]:
    """The floating-point outputs, 0 where a logit says that something cannot come."""
    floats = {name: tensor for name, tensor in outputs(result).items() if tensor.is_floating_point()}
    return {name: tensor.where(tensor.abs() < FORBIDDEN, 0) for name, tensor in floats.items()}


def cost(name: str, model: nn.Module) -> tuple[int, float]:
    """Parameters and multiply-adds of a model on the meta device."""
    with torch.device("meta"):
        inputs = landmark_of(name).example(model.config, 1, None)
    with FlopCounterMode(display=False) as counter:
        model(**inputs)
    return sum(p.numel() for p in model.parameters() if p.requires_grad), counter.get_total_flops() / 2


def drawn_up(name: str, **overrides: Any) -> nn.Module:
    """A configuration on the meta device: names and shapes without numbers."""
    with torch.device("meta"):
        return create_model(name, **overrides).eval()


def is_small(task: str, parameters: int, macs: float) -> bool:
    return parameters <= MOST_PARAMETERS and macs <= MOST_MACS.get(task, MOST_MACS_ELSE)


def small_ones() -> dict[str, tuple[str, dict[str, Any]]]:
    """What is run for real: every small variant, and what the references are compared at where that is small."""
    chosen: dict[str, tuple[str, dict[str, Any]]] = {}
    for card in CARDS.values():
        small = {name for name, v in card.variants.items() if is_small(card.task, v.parameters, v.macs)}
        chosen |= {name: (name, {}) for name in card.variants if name in small}
        rows = {repr((row.variant, row.ours)): row for row in card.references if row.ours}
        reduced = [
            (row.variant, row.ours)
            for row in rows.values()
            if is_small(card.task, *cost(row.variant, drawn_up(row.variant, **row.ours)))
        ]
        chosen |= {f"{name}-reduced{n}": (name, overrides) for n, (name, overrides) in enumerate(reduced, 1)}
    return chosen


SMALL = small_ones()
SMALL_CLASSIFIERS = [small for small, (name, _) in SMALL.items() if name in CLASSIFIERS]
every_small = pytest.mark.parametrize("small", SMALL)
every_small_classifier = pytest.mark.parametrize("small", SMALL_CLASSIFIERS)


@functools.cache
def sketch(name: str) -> nn.Module:
    return drawn_up(name)


@functools.cache
def grown(small: str) -> nn.Module:
    """A small model with every weight drawn at random, in evaluation mode. Tests read it and leave it as it is."""
    name, overrides = SMALL[small]
    torch.manual_seed(0)
    model = create_model(name, **overrides).eval()
    inputs = example(name, model.config, 2)
    randomise(model, lambda: model(**inputs), seed=0)
    return model


def task_of(small: str) -> str:
    return card_of(SMALL[small][0]).task


def inputs_of(small: str, count: int) -> dict[str, Tensor]:
    return example(SMALL[small][0], grown(small).config, count)


def about(small: str, model: nn.Module) -> Portable:
    """What the folder of a small model says."""
    name, config = SMALL[small][0], model.config
    classes = tuple(f"class {n}" for n in range(getattr(config, "num_classes", 0)))
    preprocess = preprocess_of(landmark_of(name), config, "") if hasattr(config, "image_size") else {}
    return Portable(name, architecture_of(model), task_of(small), classes, preprocess)
