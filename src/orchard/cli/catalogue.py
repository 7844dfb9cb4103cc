"""`orchard list` and `orchard show`: what there is. They read cards only, without Rich, so that they answer at once."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchard.cli.output import Json, bold, emit, tell_all

if TYPE_CHECKING:
    from orchard.cards import Card, Variant


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
    from orchard.cards import all_cards

    rows = [
        {
            "name": name,
            "landmark": card.name,
            "year": card.year,
            "task": card.task,
            "tasks": [card.task, *card.tasks],
            "family": card.family,
            "parameters": variant.parameters,
            "macs": variant.macs,
            "proof": proof_of(card),
            "recipes": [recipe.data for recipe in card.recipes if recipe.model == name],
        }
        for card in all_cards().values()
        if task in (None, card.task, *card.tasks) and family in (None, card.family)
        for name, variant in card.variants.items()
    ]
    emit(rows, as_json, _show_rows)


def _show_rows(rows: list[dict[str, Any]]) -> None:
    from orchard.cards import all_cards

    lines = [f"{'':34}{'parameters':>10}{'multiply-adds':>15}  recipes"]
    before = ""
    for row in rows:
        if row["landmark"] != before:
            before = row["landmark"]
            title = bold(all_cards()[before].label)
            lines += ["", f"{title} ({row['year']}), {', '.join(row['tasks'])}, proof: {row['proof']}"]
        sizes = f"{millions(row['parameters']):>10}{millions(row['macs']):>15}"
        lines.append(f"  {row['name']:32}{sizes}  {', '.join(row['recipes'])}".rstrip())
    tell_all(lines)


def show(
    name: Annotated[str, typer.Argument(help="A landmark or one of its variants.")],
    as_json: Json = False,
) -> None:
    """Print a model's card: idea, lineage, shape, size, cost, proof, results."""
    import dataclasses

    from orchard.cards import FOREIGN, card_of, descendants_of

    if name.startswith(FOREIGN):
        from orchard.models.foreign import check_foreign

        check_foreign(name)
    card = card_of(name)
    table = dataclasses.asdict(card) | {"descendants": descendants_of(card.name), "asked": name}
    emit(table, as_json, lambda _: _show_card(card, name))


def _show_card(card: Card, name: str) -> None:
    wanted = {name: card.variants[name]} if name in card.variants else card.variants
    lines = [f"{bold(card.label)}  {card.authors}, {card.year}", card.title, card.paper, *filter(None, [card.code])]
    lines += ["", *_paragraph(card.idea)]
    lines += ["", bold("lineage"), *_lineage(card)]
    lines += ["", bold("shape"), *card.diagram.strip("\n").split("\n")]
    lines += ["", *_sizes(wanted), ""]
    lines.append(f"{bold('proof')} (`orchard verify {next(iter(wanted))}`)")
    lines += [f"  {row.reference}, same weights, difference at most {row.tolerance:g}" for row in card.references]
    if not card.references:
        lines.append("  no published code to compare with: parameter counts and tests of its own")
    for deviation in card.deviations:
        lines += _paragraph(deviation, "  - ")
    weights = [(name, row.name) for row in card.weights for name in wanted if name in row.files]
    if weights:
        lines.append(f"{bold('weights')}, fetched by name")
        lines += [f"  orchard import {name} card:{place} --out FOLDER" for name, place in weights]
    figures = _figures(card, wanted)
    if figures:
        lines.append(f"{bold('figures')}, published and reached here")
        for figure in figures:
            lines += _paragraph(figure)
    tell_all(lines)


def _paragraph(text: str, begin: str = "  ") -> list[str]:
    """Lines that fit the terminal, indented by what the first one begins with."""
    width = max(shutil.get_terminal_size().columns, 20)
    indent = " " * len(begin)
    return textwrap.wrap(text, width, initial_indent=begin, subsequent_indent=indent, break_on_hyphens=False)


def _lineage(card: Card) -> list[str]:
    """Ancestors above, descendants below, as a small drawing."""
    from orchard.cards import all_cards, descendants_of

    cards = all_cards()

    def label(name: str) -> str:
        return f"{cards[name].label} ({cards[name].year})" if name in cards else name

    lines = [line for name in card.ancestors for line in (f"  {label(name)}", "     │")]
    lines.append(f"  {card.label} ({card.year})")
    below = descendants_of(card.name)
    return lines + [f"     {'└' if n == len(below) else '├'}─ {label(name)}" for n, name in enumerate(below, 1)]


def _sizes(variants: dict[str, Variant]) -> list[str]:
    rows = [("variant", "parameters", "multiply-adds", "note")]
    rows += [(name, f"{row.parameters:,}", millions(row.macs), row.note) for name, row in variants.items()]
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"  {name:{wide[0]}}  {parameters:>{wide[1]}}  {macs:>{wide[2]}}  {remark}".rstrip()
        for name, parameters, macs, remark in rows
    ]


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
