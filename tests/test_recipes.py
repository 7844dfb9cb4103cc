"""Every recipe of every card: its settings exist, its model can be built, and where that is small it takes a step.

The figures that recipes reach are measured by whole trainings and stand in the cards with their commands.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from battery import marks
from by_task import hooks_of

from orchard.app.looking import look_settings
from orchard.app.train import train
from orchard.cards import Card, Recipe, all_cards, card_of, find_recipe
from orchard.data.kinds import canonical_name, kind_named
from orchard.data.settings import AugmentSettings
from orchard.models import create_model
from orchard.tasks.record import Task
from orchard.tasks.registry import task_named
from orchard.training.settings import resolve

WITH_RECIPES = [
    pytest.param(card, id=card.name, marks=marks(slow=False)) for card in all_cards().values() if card.recipes
]


@pytest.mark.parametrize("card", WITH_RECIPES)
def test_the_settings_of_a_recipe_exist_and_its_model_can_be_built(card: Card) -> None:
    built = []
    for recipe in card.recipes:
        task = task_named(task_of(recipe))
        command = {"model": recipe.model, "data.source": recipe.data}
        resolved = resolve(command, recipe, "recipe", task.load(task.settings))
        settings = resolved.settings
        size = {"image_size": settings.image_size} if getattr(settings, "image_size", None) else {}
        if (recipe.model, size, settings.architecture) not in built:
            with torch.device("meta"):
                create_model(recipe.model, **size, **settings.architecture)
            built.append((recipe.model, size, settings.architecture))
        assert {key for key in resolved.origins if resolved.origins[key] == "recipe"} == set(recipe.settings), recipe


def task_of(recipe: Recipe) -> str:
    """What a recipe teaches: of a model of several tasks, the one that learns from such data."""
    card = card_of(recipe.model)
    for name in card.tasks:
        kind = kind_named(task_named(name).data)
        if recipe.data in (kind.name, *kind.named):
            return name
    return card.task


def small(recipe: Recipe, card: Card) -> bool:
    size = card.variants[recipe.model]
    return size.parameters < 1e6 and size.macs * (recipe.settings.get("batch_size", 64) / 64) < 60e6


def steps() -> list[Any]:
    """The recipes of small models; all but the first of a task are slow: a training with its report takes seconds."""
    seen: set[str] = set()
    params = []
    for card in all_cards().values():
        for recipe in (recipe for recipe in card.recipes if small(recipe, card)):
            params.append(
                pytest.param(recipe, id=f"{recipe.model}-{recipe.data}", marks=marks(slow=task_of(recipe) in seen))
            )
            seen.add(task_of(recipe))
    return params


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Where a task's recipes get their data, made once."""
    made: dict[str, tuple[str, dict[str, Any]]] = {}

    def data_of(task: str) -> tuple[str, dict[str, Any]]:
        if task not in made:
            made[task] = hooks_of(task).data(tmp_path_factory.mktemp(task))
        return made[task]

    return data_of


@pytest.mark.parametrize("recipe", steps())
def test_a_recipe_of_a_small_model_takes_a_step(recipe: Recipe, tmp_path: Path, data: Any) -> None:
    """On the digits, which need no files (or what its task has instead), by the settings for whatever set it is for; in
    the environment that it is for."""
    source, settings = data(task_of(recipe))
    source = recipe.data if recipe.data.startswith("gym:") else source
    shorter = {"max_steps": 1, "batch_size": 16, "log_every": 1, **settings}
    metrics = train(recipe.model, source, tmp_path / "run", recipe=recipe.data, **shorter)
    assert metrics["steps"] == 1
    written = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert written["optimizer.lr"]["origin"] == f"recipe {recipe.model} on {recipe.data}"


def test_no_two_recipes_are_for_the_same_model_and_data() -> None:
    pairs = [(recipe.model, recipe.data) for card in all_cards().values() for recipe in card.recipes]
    assert len(pairs) == len(set(pairs))


def is_common(task: Task) -> bool:
    """Does a task vary images by the settings that classifiers have?"""
    field = task.load(task.settings).model_fields.get("augmentation")
    return field is not None and issubclass(field.annotation, AugmentSettings)


def test_data_can_be_checked_with_every_recipe() -> None:
    """Also where a task augments by what no other has."""
    for card in all_cards().values():
        for recipe in card.recipes:
            for source in (recipe.data, "somewhere"):
                settings = look_settings(source, recipe.model, {}).settings
                data, augmentation = settings.data, settings.augmentation
                chosen = find_recipe(recipe.model, canonical_name(source))
                flips = chosen is not None and chosen.settings.get("augmentation.flip", False)
                assert data.source == source
                assert augmentation.flip == (flips and is_common(task_named(task_of(recipe))))
