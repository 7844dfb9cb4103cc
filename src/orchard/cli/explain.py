"""`orchard explain`: what a trained model looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchard.cli.output import Json, emit, tell
from orchard.terminal import note

if TYPE_CHECKING:
    from rich.text import Text

WEAK, STRONG = 0.1, 0.5  # shares of a word in an answer


def explain_model(
    run: Annotated[Path, typer.Argument(help="Run or model folder of a classifier of images or texts.")],
    images: Annotated[
        list[str] | None, typer.Argument(metavar="[ITEM]...", help="Files, folders or patterns of images; or texts.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="grad-cam, integrated-gradients or attention-rollout for images; features: what classes or units "
            "respond to; atlas: activations over --data. Default: fits the model."
        ),
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to explain; default: the predicted one, or all for features.")
    ] = None,
    unit: Annotated[
        list[str] | None,
        typer.Option(metavar="STAGE:CHANNEL", help="For features: a channel (from 0) of a stage (from 1); repeatable."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="For the atlas: data as `orchard evaluate` takes it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write into; default: explained/RUN-METHOD.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a classifier looks at: heat maps over images, features, an activation atlas; the words of texts.

    Every explanation of an image is a PNG file; one page, explain.html or atlas.html, shows all.
    """
    from orchard.app.explain import explain
    from orchard.errors import OrchardError

    found = explain(
        run, images or [], method=method, class_name=class_name, units=unit or (), data=data, out=out, say=note
    )
    emit(found, as_json, show)
    failed = [one for one in found["explanations"] if "error" in one]
    for one in failed:
        note(f"{one.get('picture', one.get('text'))}: {one['error']}")
    if failed:
        count, first = len(found["explanations"]), failed[0]
        name = first.get("picture", first.get("text"))
        raise OrchardError(f"{len(failed)} of {count} could not be explained, {name} among them")


def show(found: dict[str, Any]) -> None:
    """A line for each explanation, and where the page is."""
    from rich.table import Table

    from orchard.console import Console

    rows = [one for one in found["explanations"] if "error" not in one]
    if any("words" in one for one in rows):
        table = Table("text", "explained", "answer")
        for one in rows:
            table.add_row(_shaded(one["words"]), one["class"], f"{one['probability']:.1%}")
    elif any("picture" in one for one in rows):
        table = Table("picture", "explained", "answer", "file")
        for one in rows:
            said = f"{one['probability']:.1%}" if "probability" in one else f"{one['value']:.6g}"
            table.add_row(one["picture"], one["class"], said, Path(one["file"]).name)
    else:
        table = Table("explained", "activation", "file")
        for one in rows:
            activation = f"{one['activation']:.3g}" if "activation" in one else ""
            table.add_row(one.get("class") or one["unit"], activation, Path(one["file"]).name)
    if rows:
        Console().print(table)
        tell(f"page: {found['page']}")


def _shaded(words: Sequence[Mapping[str, Any]]) -> Text:
    """Words for the answer in green, words against it in red, the strong ones bold; weak ones as they are."""
    from rich.text import Text

    line = Text()
    for word in words:
        share = word["share"]
        style = (
            "" if abs(share) < WEAK else ("green" if share > 0 else "red") + (" bold" if abs(share) > STRONG else "")
        )
        line.append(f"{word['text']} ", style)
    return line
