"""`orchard data check`: what a set holds, and what a model will see of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchard.cli.output import Json, emit, note, parse_settings

if TYPE_CHECKING:
    from rich.console import Console

    from orchard.data.check import Check, Duplicate
    from orchard.data.contracts import AugmentSettings, DataSettings, ImageData, Preprocess

data_app = typer.Typer(help="Look at data before training on it.", no_args_is_help=True, rich_markup_mode=None)
SHOWN = 10  # problems, duplicates and classes that the table for people lists

Set = Annotated[list[str], typer.Option("--set", help="Setting as key=value: data.* or augmentation.*")]


@data_app.callback()
def look_at_data() -> None:
    """Look at data before training on it."""


@data_app.command("check")
def check_data(
    source: Annotated[str, typer.Argument(help="A named set, a folder, a zip archive or a table.")],
    model: Annotated[str | None, typer.Option(help="Show what this model sees, with its recipe.")] = None,
    mosaic: Annotated[Path | None, typer.Option(help="Draw what a model will see into this PNG file.")] = None,
    settings: Set = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Say which format it is, what it holds and what is wrong with it; with --mosaic, draw what a model will see."""
    from orchard.data.check import check, draw_mosaic
    from orchard.errors import OrchardError

    data_settings, augment = _settings(source, model, settings)
    data, result = check(source, data_settings)
    answer = result.to_json()
    if mosaic:
        preprocess = _preprocess(data, model)
        try:
            draw_mosaic(data, preprocess, augment, mosaic)
        except OSError as error:
            raise OrchardError(f"the mosaic cannot be written to {mosaic}: {error.strerror or error}") from None
        answer |= {"mosaic": str(mosaic), "preprocess": preprocess.to_json(), "augmentation": augment.model_dump()}
        note(f"mosaic in {mosaic}: of each picture first what evaluation sees, then what training makes of it")
    emit(answer, as_json, lambda _: _show(result))


def _settings(source: str, model: str | None, pairs: list[str]) -> tuple[DataSettings, AugmentSettings]:
    """What --set says, on top of the model's recipe."""
    from orchard.cards import find_recipe
    from orchard.data import canonical_name
    from orchard.training.settings import resolve

    recipe = find_recipe(model, canonical_name(source)) if model else None
    name = f"recipe {recipe.model} on {recipe.data}" if recipe else ""
    command = parse_settings(pairs) | {"model": model or "none", "data.source": source}
    settings = resolve(command, recipe, name).settings
    return settings.data, settings.augmentation


def _preprocess(data: ImageData, model: str | None) -> Preprocess:
    from orchard.data.check import size_to_show
    from orchard.data.preprocess import default_preprocess

    if model is None:
        return default_preprocess(data, size_to_show(data), data.channels)
    from orchard.models import configuration

    config: Any = configuration(model)
    return default_preprocess(data, config.image_size, data.channels)


def _show(result: Check) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    colours = {1: "grey", 3: "RGB"}[result.channels]
    console.print(f"{result.source}: {result.format}, because {result.reason}", highlight=False, markup=False)
    console.print(
        f"{colours} pictures, width {_spread(result.widths)}, height {_spread(result.heights)} pixels; the largest "
        f"training class is {result.imbalance:g} times the smallest", highlight=False, markup=False,
    )  # fmt: skip
    table = Table("class", *result.counts)
    for column in table.columns[1:]:
        column.justify = "right"
    for label in result.classes[:SHOWN]:
        table.add_row(label, *(f"{per_class[label]:,}" for per_class in result.counts.values()))
    if len(result.classes) > SHOWN:
        table.add_row(f"and {len(result.classes) - SHOWN} more")
    table.add_section()
    totals = (f"{sum(per_class.values()):,}" for per_class in result.counts.values())
    table.add_row(f"{len(result.classes)} classes", *totals)
    console.print(table)
    lines = [f"{problem.key}: {problem.what}" for problem in result.problems]
    _list(console, "problem", lines)
    across = [d for d in result.duplicates if len(d.splits) > 1 or len(d.labels) > 1]
    _list(console, "picture in several splits or classes", [_words(d) for d in across])
    within = [d for d in result.duplicates if d not in across]
    _list(console, "picture more than once in one split and class", [_words(d) for d in within])
    if not lines and not result.duplicates:
        console.print("no unreadable, empty or duplicate pictures")
    console.print(f"fingerprint {result.fingerprint[:16]}", highlight=False)


def _spread(sides: tuple[int, int, int]) -> str:
    low, middle, high = sides
    return str(low) if low == high else f"{low} to {high} (median {middle})"


def _words(duplicate: Duplicate) -> str:
    keys = ", ".join(duplicate.keys[:4]) + (", ..." if len(duplicate.keys) > 4 else "")
    labels = f" labelled {' and '.join(duplicate.labels)}" if len(duplicate.labels) > 1 else ""
    return f"{keys} ({', '.join(duplicate.splits)}){labels}"


def _list(console: Console, what: str, lines: list[str]) -> None:
    if lines:
        console.print(f"{len(lines)} x {what}:", highlight=False, markup=False)
        for line in lines[:SHOWN]:
            console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
        if len(lines) > SHOWN:
            console.print(f"  and {len(lines) - SHOWN} more; --json lists all", highlight=False)
