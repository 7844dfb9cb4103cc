"""`orchard explain`: what a trained model looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orchard.cli.output import Json, emit, tell
from orchard.terminal import note


def explain_model(
    run: Annotated[Path, typer.Argument(help="Run or model folder of an image classifier.")],
    images: Annotated[
        list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Files, folders or patterns of images.")
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
    """Show what an image classifier looks at: heat maps over images, features, an activation atlas.

    Every explanation is a PNG file; one page, explain.html or atlas.html, shows all.
    """
    from orchard.app.explain import explain
    from orchard.errors import OrchardError

    found = explain(
        run, images or [], method=method, class_name=class_name, units=unit or (), data=data, out=out, say=note
    )
    emit(found, as_json, show)
    failed = [one for one in found["explanations"] if "error" in one]
    for one in failed:
        note(f"{one['picture']}: {one['error']}")
    if failed:
        count = len(found["explanations"])
        raise OrchardError(f"{len(failed)} of {count} could not be explained, {failed[0]['picture']} among them")


def show(found: dict[str, Any]) -> None:
    """A line for each explanation, and where the page is."""
    from rich.table import Table

    from orchard.console import Console

    rows = [one for one in found["explanations"] if "error" not in one]
    if any("picture" in one for one in rows):
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
