"""What the battery runs: every variant of every card on paper, and for real what is small enough.

Nothing is built while tests are collected. What `make test` leaves to `make test-all` has the mark `slow`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from by_task import Hooks, example, hooks_of
from torch import Tensor, nn

from orchard.cards import Card, Reference, all_cards, card_of, sizes
from orchard.models import configuration, create_model, landmark_of
from orchard.weights.nested import tensors_of
from orchard.weights.official import preprocess_of
from orchard.weights.portable import Portable, architecture_of
from orchard.weights.proof import choices_of
from orchard.weights.reference import randomise
from orchard.weights.sizes import size_of

CARDS = all_cards()
CLASSIFICATION = "image-classification"
MOST_PARAMETERS = 3e6  # of a configuration that is run for real
FORBIDDEN = 1e30  # logits of what cannot come are larger than that in size, and no numbers to compute with


def numbers(result: Any) -> dict[str, Tensor]:
    """The floating-point outputs by their paths, 0 where a logit says that something cannot come."""
    floats = {name: tensor for name, tensor in tensors_of(result).items() if tensor.is_floating_point()}
    return {name: tensor.where(tensor.abs() < FORBIDDEN, 0) for name, tensor in floats.items()}


def marks(slow: bool) -> list[pytest.MarkDecorator]:
    """What is `slow` is left to `make test-all`."""
    return [pytest.mark.slow] if slow else []


# On paper


@functools.cache
def sketch(name: str) -> nn.Module:
    """A variant on the meta device: names and shapes without numbers."""
    return drawn_up(name)


def drawn_up(name: str, **overrides: Any) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, **overrides).eval()


@dataclass(frozen=True)
class Paper:
    """The variants of a card: all, or the smallest of each kind of code (the same words and switches)."""

    card: Card
    every: bool

    def __iter__(self) -> Iterator[str]:
        variants = self.card.variants
        kinds: dict[str, str] = {}
        for name in sorted(variants, key=lambda name: variants[name].macs):
            kinds.setdefault(str(choices_of(configuration(name))), name)
        return iter(list(variants) if self.every else list(kinds.values()))


def papers(cards: Iterable[Card]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "variants",
        [
            pytest.param(Paper(card, every), id=f"{card.name}-all" if every else card.name, marks=marks(every))
            for card in cards
            for every in (False, True)
        ],
    )


every_card = papers(CARDS.values())
every_classifier_card = papers(card for card in CARDS.values() if card.task == CLASSIFICATION)


# For real


@dataclass(frozen=True)
class Small:
    """A configuration that is run for real: a small variant, or what a reference is compared at."""

    name: str
    reference: Reference | None = None

    @property
    def overrides(self) -> dict[str, Any]:
        return self.reference.ours if self.reference else {}

    @property
    def card(self) -> Card:
        return card_of(self.name)

    @property
    def hooks(self) -> Hooks:
        return hooks_of(self.card.task)

    @property
    def key(self) -> str:
        return repr((self.name, self.overrides))

    def is_small(self) -> bool:
        """Of what a reference is compared at this is not known before it is drawn up."""
        return not self.reference or is_small(self.card, size_of(self.name, drawn_up(self.name, **self.overrides)))

    def grown(self) -> nn.Module:
        """The model with every weight drawn at random, in evaluation mode. Tests read it and leave it as it is."""
        model = GROWN.get(self.key)
        if model is None:
            model = GROWN[self.key] = self._grow()
        return model

    def _grow(self) -> nn.Module:
        if not self.is_small():
            pytest.skip("too large to be run")
        torch.manual_seed(0)
        model = create_model(self.name, **self.overrides).eval()
        inputs = example(self.name, model.config, 2)
        randomise(model, lambda: model(**inputs), seed=0)
        return model

    def inputs(self, count: int) -> dict[str, Tensor]:
        return example(self.name, self.grown().config, count)

    def about(self) -> Portable:
        """What the folder of the model says."""
        model = self.grown()
        classes = tuple(f"class {n}" for n in range(getattr(model.config, "num_classes", 0)))
        landmark = landmark_of(self.name)
        preprocess = preprocess_of(landmark, model.config, "") if hasattr(model.config, "image_size") else {}
        return Portable(self.name, architecture_of(model), self.card.task, classes, preprocess)


GROWN: dict[str, nn.Module] = {}  # once a process


def is_small(card: Card, size: dict[str, int]) -> bool:
    return size["parameters"] <= MOST_PARAMETERS and size["macs"] <= hooks_of(card.task).most_macs


def small_ones(card: Card) -> dict[str, Small]:
    """The small variants of a card as it lists them, and what its references are compared at (where that is small)."""
    chosen = {name: Small(name) for name in card.variants if is_small(card, sizes()[name])}
    reduced = {repr((row.variant, row.ours)): row for row in card.references if row.ours}.values()
    return chosen | {f"{row.variant}-reduced{n}": Small(row.variant, row) for n, row in enumerate(reduced, 1)}


SMALL = {id: small for card in CARDS.values() for id, small in small_ones(card).items()}


def smalls(wanted: Iterable[str] = SMALL, once: str = "module", elsewhere: Iterable[str] = ()) -> pytest.MarkDecorator:
    """The small configurations; of those of one module (or task) only the first is not slow.

    None is of modules (or tasks) for which tests `elsewhere` do the same.
    """
    seen = set(elsewhere)
    params = []
    for id in wanted:
        card = SMALL[id].card
        one = getattr(card, once)
        params.append(pytest.param(SMALL[id], id=id, marks=marks(slow=one in seen)))
        seen.add(one)
    return pytest.mark.parametrize("small", params)


every_small = smalls()
every_small_classifier = smalls([id for id, small in SMALL.items() if small.card.task == CLASSIFICATION])
