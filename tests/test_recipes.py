"""Every recipe of every card: its settings exist, its model can be built, and where that is small it takes a step.

The figures that recipes reach are measured by whole trainings and stand in the cards with their commands.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from orchard.app.train import train
from orchard.cards import Recipe, all_cards, card_of
from orchard.models import create_model
from orchard.training.settings import resolve

RECIPES = [recipe for card in all_cards().values() for recipe in card.recipes]


def small(recipe: Recipe) -> bool:
    card = next(card for card in all_cards().values() if recipe.model in card.variants)
    size = card.variants[recipe.model]
    return size.parameters < 1e6 and size.macs * (recipe.settings.get("batch_size", 64) / 64) < 60e6


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.model}-{recipe.data}")
def test_the_settings_of_a_recipe_exist_and_its_model_can_be_built(recipe: Recipe) -> None:
    resolved = resolve({"model": recipe.model, "data.source": recipe.data}, recipe, "recipe")
    settings = resolved.settings
    size = {"image_size": settings.image_size} if settings.image_size else {}
    with torch.device("meta"):
        create_model(recipe.model, **size, **settings.architecture)
    assert {key for key in resolved.origins if resolved.origins[key] == "recipe"} == set(recipe.settings)


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture tokenizer for the painters."""
    folder = tmp_path_factory.mktemp("tokenizer") / "run"
    train("vqgan_nano", "digits", folder, max_steps=1, batch_size=16)
    return folder


@pytest.mark.parametrize("recipe", filter(small, RECIPES), ids=lambda recipe: f"{recipe.model}-{recipe.data}")
def test_a_recipe_of_a_small_model_takes_a_step(recipe: Recipe, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """On the digits, which need no files (or on a text), by the settings for whatever set the recipe is for."""
    shorter: dict[str, Any] = {"max_steps": 1, "batch_size": 16, "log_every": 1}
    source, task = "digits", card_of(recipe.model).task
    if task == "text-to-image":
        shorter["tokenizer"] = str(request.getfixturevalue("codes"))
    if task == "text-generation":
        source = str(tmp_path / "book.txt")
        Path(source).write_text("A tree bears fruit, and the fruit bears trees. " * 300)
    metrics = train(recipe.model, source, tmp_path / "run", recipe=recipe.data, **shorter)
    assert metrics["steps"] == 1
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["optimizer.lr"]["origin"] == f"recipe {recipe.model} on {recipe.data}"


def test_no_two_recipes_are_for_the_same_model_and_data() -> None:
    pairs = [(recipe.model, recipe.data) for recipe in RECIPES]
    assert len(pairs) == len(set(pairs))
