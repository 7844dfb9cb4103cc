"""`orchard compress`: a trained model made smaller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from orchard.cli.output import Json, emit, parse_settings, tell
from orchard.cli.train import Set


def compress_command(arguments: list[str]) -> Callable[..., None]:
    """The command; its help lists the methods and their settings where the `arguments` ask for it."""

    def command(
        run: Annotated[Path, typer.Argument(help="Run or model folder.")],
        method: Annotated[str, typer.Option(help="How: see above.")],
        data: Annotated[
            str | None, typer.Option(help="The data to retrain on and to judge by; default: those of the run.")
        ] = None,
        out: Annotated[Path | None, typer.Option(help="Folder of the result; default: runs/MODEL-DATA-METHOD.")] = None,
        settings: Set = None,
        as_json: Json = False,
    ) -> None:
        from orchard.app.compress import compress

        emit(compress(run, method, data, out, **parse_settings(settings or [])), as_json, show)

    words = "Make a trained model smaller, and show what that costs."
    command.__doc__ = f"{words}\n\n{_methods()}" if {"-h", "--help"} & {*arguments} else words
    return command


def _methods() -> str:
    """Every method with its settings, for the help."""
    from orchard.compression.registry import method_names
    from orchard.compression.words import method_words

    return "\n\n".join(method_words(name) for name in method_names())


def show(table: dict[str, Any]) -> None:
    """Before and after as a table."""
    from rich.table import Table

    from orchard.compression.report import rows
    from orchard.console import Console

    title = f"{table['model']} on {table['data']}, {table['method']}"
    shown = Table("", "before", "after", "difference", title=title, title_justify="left", box=None, pad_edge=False)
    for column in shown.columns[1:]:
        column.justify = "right"
    for row in rows(table):
        shown.add_row(*row)
    Console().print(shown)
    tell(f"run:    {table['run']}\nreport: {table['run']}/report.html")
