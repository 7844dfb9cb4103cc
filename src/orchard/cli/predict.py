"""`orchard predict`: answers for pictures, as a table, JSON or CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchard.cli.output import Json, note

if TYPE_CHECKING:
    from orchard.inference.predicting import Answer


def predict(
    run: Annotated[Path, typer.Argument(help="Run or model folder.")],
    pictures: Annotated[list[str], typer.Argument(help="Files, folders or patterns.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name for each picture.")] = 5,
    table: Annotated[Path | None, typer.Option("--csv", help="Write the answers to this file.")] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    as_json: Json = False,
) -> None:
    """What a trained model says of pictures. One that cannot be read is named, the others are answered."""
    from orchard.errors import OrchardError, unknown
    from orchard.inference.loading import load
    from orchard.inference.predicting import Predictor, find_pictures

    if precision not in ("auto", "fp32", "bf16"):
        raise unknown("precision", precision, ["auto", "fp32", "bf16"])
    found = find_pictures(pictures)
    predictor = Predictor(load(run), precision=precision, say=note)  # type: ignore[arg-type]
    unread: list[str] = []

    def watched() -> Iterator[Answer]:
        for answer in predictor.predict(found, top):
            if answer.error:
                unread.append(answer.picture)
                note(f"{answer.picture}: {answer.error}")
            yield answer

    if table:
        write_csv(watched(), table, min(top, len(predictor.loaded.classes)))
    elif as_json:
        write_json(watched())
    else:
        show(watched())
    if unread:
        raise OrchardError(f"{len(unread)} of {len(found)} pictures could not be read, {unread[0]} among them")


def row(answer: Answer) -> dict[str, Any]:
    if answer.error:
        return {"picture": answer.picture, "error": answer.error}
    return {"picture": answer.picture, "top": [{"class": name, "probability": p} for name, p in answer.top]}


def write_json(answers: Iterable[Answer]) -> None:
    """One JSON list, written as the answers come: memory does not grow with their number."""
    separator = "[\n"
    for answer in answers:
        sys.stdout.write(separator + json.dumps(row(answer), ensure_ascii=False))
        separator = ",\n"
    sys.stdout.write("\n]\n")


def write_csv(answers: Iterable[Answer], path: Path, top: int) -> None:
    """One line a picture: path, class and probability of each place, error."""
    from orchard.errors import OrchardError

    places = [f"{what}_{n}" for n in range(1, top + 1) for what in ("class", "probability")]
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("w", newline="", encoding="utf-8"))
        except OSError as error:
            raise OrchardError(f"{path} cannot be written: {error.strerror}") from None
        writer = csv.writer(file)
        writer.writerow(["picture", *places, "error"])
        for answer in answers:
            cells = [cell for name, p in answer.top for cell in (name, f"{p:.6f}")]
            writer.writerow([answer.picture, *cells, *[""] * (len(places) - len(cells)), answer.error])


def show(answers: Iterable[Answer]) -> None:
    """A table for a person: the likeliest class large, the others beside it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("picture", "answer")
    table.add_column("probability", justify="right")
    table.add_column("then")
    for answer in answers:
        if answer.error:
            table.add_row(escape(answer.picture), "", "", f"[red]{escape(answer.error)}[/red]")
        else:
            (name, p), *others = answer.top
            rest = ", ".join(f"{other} {q:.1%}" for other, q in others)
            table.add_row(escape(answer.picture), escape(name), f"{p:.1%}", escape(rest))
    Console().print(table)
