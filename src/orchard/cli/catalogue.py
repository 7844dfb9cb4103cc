"""`orchard list` and `orchard show`: what there is. They read cards only, so that they answer at once."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from orchard.cards import FOREIGN, Card, Variant, all_cards, card_of, descendants_of
from orchard.cli.output import Json, emit


def proof_of(card: Card) -> str:
    """What the landmark is proven against, in a few words."""
    kinds = dict.fromkeys(row.reference.split(":")[0] for row in card.references)
    return ", ".join(kinds) or "own tests"


def millions(count: float) -> str:
    return f"{count / 1e6:,.2f}M" if count < 1e8 else f"{count / 1e6:,.0f}M"


def list_models(
    task: Annotated[str | None, typer.Option(help="Only landmarks for this task.")] = None,
    family: Annotated[str | None, typer.Option(help="Only landmarks of this family.")] = None,
    as_json: Json = False,
) -> None:
    """List all models: year, task, size, proof."""
    rows = [
        {
            "name": name,
            "landmark": card.name,
            "year": card.year,
            "task": card.task,
            "family": card.family,
            "parameters": variant.parameters,
            "macs": variant.macs,
            "proof": proof_of(card),
            "recipes": [recipe.data for recipe in card.recipes if recipe.model == name],
        }
        for card in all_cards().values()
        if task in (None, card.task) and family in (None, card.family)
        for name, variant in card.variants.items()
    ]
    emit(rows, as_json, _show_rows)


def _show_rows(rows: list[dict[str, Any]]) -> None:
    from rich.text import Text

    from orchard.console import Console

    shown = Text(f"{'':34}{'parameters':>10}{'multiply-adds':>15}  recipes\n")
    before = ""
    for row in rows:
        if row["landmark"] != before:
            before = row["landmark"]
            shown.append("\n").append(all_cards()[before].label, "bold")
            shown.append(f" ({row['year']}), {row['task']}, proof: {row['proof']}\n")
        sizes = f"{millions(row['parameters']):>10}{millions(row['macs']):>15}"
        shown.append(f"  {row['name']:32}{sizes}  {', '.join(row['recipes'])}\n")
    Console(soft_wrap=True).print(shown, end="")


def show(
    name: Annotated[str, typer.Argument(help="A landmark or one of its variants.")],
    as_json: Json = False,
) -> None:
    """Print a model's card: idea, lineage, shape, size, cost, proof, results."""
    if name.startswith(FOREIGN):
        from orchard.models.foreign import check_foreign

        check_foreign(name)
    card = card_of(name)
    table = dataclasses.asdict(card) | {"descendants": descendants_of(card.name), "asked": name}
    emit(table, as_json, lambda _: _show_card(card, name))


def _show_card(card: Card, name: str) -> None:
    from rich.padding import Padding

    from orchard.console import Console

    console = Console()
    wanted = {name: card.variants[name]} if name in card.variants else card.variants
    console.print(f"[bold]{card.label}[/bold]  {card.authors}, {card.year}", markup=True)
    console.print(f"{card.title}\n{card.paper}" + (f"\n{card.code}" if card.code else ""))
    console.print()
    console.print(Padding(" ".join(card.idea.split()), (0, 2)))
    console.print("\n[bold]lineage[/bold]", markup=True)
    console.print(_lineage(card))
    console.print("\n[bold]shape[/bold]", markup=True)
    console.print(card.diagram.strip("\n"), no_wrap=True, crop=False)
    console.print()
    console.print(_sizes(wanted))
    console.print(f"[bold]proof[/bold] (`orchard verify {next(iter(wanted))}`)", markup=True)
    for row in card.references:
        console.print(f"  {row.reference}, same weights, difference at most {row.tolerance:g}")
    if not card.references:
        console.print("  no published code to compare with: parameter counts and tests of its own")
    for deviation in card.deviations:
        console.print(Padding(f"- {deviation}", (0, 2)))
    weights = [(name, row.name) for row in card.weights for name in wanted if name in row.files]
    if weights:
        console.print("[bold]weights[/bold], fetched by name", markup=True)
        for name, place in weights:
            console.print(f"  orchard import {name} card:{place} --out FOLDER")
    figures = _figures(card, wanted)
    if figures:
        console.print("[bold]figures[/bold], published and reached here", markup=True)
        for line in figures:
            console.print(Padding(line, (0, 2)))


def _lineage(card: Card) -> str:
    """Ancestors above, descendants below, as a small drawing."""
    cards = all_cards()

    def label(name: str) -> str:
        return f"{cards[name].label} ({cards[name].year})" if name in cards else name

    lines = [f"  {label(name)}\n     │" for name in card.ancestors]
    lines.append(f"  {card.label} ({card.year})")
    below = descendants_of(card.name)
    lines += [f"     {'└' if n == len(below) else '├'}─ {label(name)}" for n, name in enumerate(below, 1)]
    return "\n".join(lines)


def _sizes(variants: dict[str, Variant]) -> Any:
    from rich.table import Table

    table = Table()
    for column in ("variant", "parameters", "multiply-adds", "note"):
        table.add_column(column, justify="right" if column in ("parameters", "multiply-adds") else "left")
    for name, variant in variants.items():
        table.add_row(name, f"{variant.parameters:,}", millions(variant.macs), variant.note)
    return table


def _figure(name: str, value: Any) -> str:
    """Shares in percent, all else as it is."""
    share = isinstance(value, float) and any(word in name for word in ("accuracy", "recall", "use", "recognised"))
    return f"{value:.2%}" if share else f"{value:g}" if isinstance(value, float) else str(value)


def _figures(card: Card, variants: dict[str, Variant]) -> list[str]:
    """Published figures and those measured here, one line each."""
    lines = [
        f"{figure.variant}, {figure.data}, {figure.metric}: {figure.value:g} ({figure.source})"
        for figure in card.figures
        if figure.variant in variants
    ]
    for recipe in card.recipes:
        if recipe.model in variants and recipe.reached:
            got = dict(recipe.reached)
            command, epochs, minutes, hardware = (got.pop(k) for k in ("command", "epochs", "minutes", "hardware"))
            figures = ", ".join(f"{name.replace('_', ' ')} {_figure(name, value)}" for name, value in got.items())
            lines.append(
                f"{recipe.model}, {recipe.data}, here: {figures} by `{command}`, {epochs:g} epochs in {minutes:g} min "
                f"on {hardware}"
            )
    return lines
