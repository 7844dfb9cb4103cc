"""`orchard list` and `orchard show`: what there is. Reads cards only."""

from __future__ import annotations

from typing import Annotated

import typer

from orchard.cards import all_cards, card_of
from orchard.cli.output import Json, emit


def list_models(
    task: Annotated[str | None, typer.Option(help="Only landmarks for this task.")] = None,
    as_json: Json = False,
) -> None:
    """Every landmark: year, task, size, proof."""
    rows = [
        {"name": name, "landmark": card.name, "year": card.year, "task": card.task, "parameters": v.parameters}
        for card in all_cards().values()
        if task in (None, card.task)
        for name, v in card.variants.items()
    ]
    emit(rows, as_json, lambda rows: [print(row) for row in rows])


def show(name: str, as_json: Json = False) -> None:
    """The card of one landmark or variant."""
    import dataclasses

    emit(dataclasses.asdict(card_of(name)), as_json, print)
