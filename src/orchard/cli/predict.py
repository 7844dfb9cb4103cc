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
    from orchard.inference.zero_shot import Hit


def predict(
    run: Annotated[Path, typer.Argument(help="Run or model folder.")],
    pictures: Annotated[list[str], typer.Argument(help="Files, folders or patterns.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes (or pictures for --query) to name.")] = 5,
    labels: Annotated[
        list[str] | None, typer.Option(help="A class to choose from, in words; one option for each (CLIP).")
    ] = None,
    query: Annotated[str | None, typer.Option(help="Search for the pictures that fit this text (CLIP).")] = None,
    table: Annotated[Path | None, typer.Option("--csv", help="Write the answers to this file.")] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    as_json: Json = False,
) -> None:
    """What a trained model says of pictures. One that cannot be read is named, the others are answered."""
    from orchard.errors import OrchardError, UsageError, unknown
    from orchard.inference.loading import load
    from orchard.inference.predicting import Predictor, find_pictures
    from orchard.inference.zero_shot import search, with_labels

    if precision not in ("auto", "fp32", "bf16"):
        raise unknown("precision", precision, ["auto", "fp32", "bf16"])
    if labels and query is not None:
        raise UsageError("--labels asks what is on each picture, --query which pictures fit a text; give one of them")
    found = find_pictures(pictures)
    loaded = load(run)
    unread: list[str] = []

    def watched(answers: Iterable[Any]) -> Iterator[Any]:
        for answer in answers:
            if answer.error:
                unread.append(answer.picture)
                note(f"{answer.picture}: {answer.error}")
            yield answer

    if query is not None:
        hits = watched(search(loaded, found, query, top))
        if table:
            lines = ([hit.picture, "" if hit.error else f"{hit.cosine:.6f}", hit.error] for hit in hits)
            write_csv(lines, table, ["picture", "cosine", "error"])
        elif as_json:
            write_json(map(hit_row, hits))
        else:
            show_hits(hits, query)
    else:
        predictor = Predictor(with_labels(loaded, labels or []), precision=precision, say=note)  # type: ignore[arg-type]
        answers = watched(predictor.predict(found, top))
        if table:
            count = min(top, len(predictor.loaded.classes))
            places = [f"{what}_{n}" for n in range(1, count + 1) for what in ("class", "probability")]
            write_csv((cells(answer, len(places)) for answer in answers), table, ["picture", *places, "error"])
        elif as_json:
            write_json(map(row, answers))
        else:
            show(answers)
    if unread:
        raise OrchardError(f"{len(unread)} of {len(found)} pictures could not be read, {unread[0]} among them")


def row(answer: Answer) -> dict[str, Any]:
    if answer.error:
        return {"picture": answer.picture, "error": answer.error}
    return {"picture": answer.picture, "top": [{"class": name, "probability": p} for name, p in answer.top]}


def hit_row(hit: Hit) -> dict[str, Any]:
    return {"picture": hit.picture, **({"error": hit.error} if hit.error else {"cosine": hit.cosine})}


def cells(answer: Answer, places: int) -> list[str]:
    """One line a picture: path, class and probability of each place, error."""
    said = [cell for name, p in answer.top for cell in (name, f"{p:.6f}")]
    return [answer.picture, *said, *[""] * (places - len(said)), answer.error]


def write_json(rows: Iterable[dict[str, Any]]) -> None:
    """One JSON list, written as the answers come: memory does not grow with their number."""
    separator = "[\n"
    for one in rows:
        sys.stdout.write(separator + json.dumps(one, ensure_ascii=False))
        separator = ",\n"
    sys.stdout.write("\n]\n")


def write_csv(lines: Iterable[list[str]], path: Path, columns: list[str]) -> None:
    from orchard.errors import OrchardError

    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("w", newline="", encoding="utf-8"))
        except OSError as error:
            raise OrchardError(f"{path} cannot be written: {error.strerror}") from None
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(lines)


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


def show_hits(hits: Iterable[Hit], query: str) -> None:
    """A table for a person: the pictures that fit best first."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(query), title_justify="left")
    table.add_column("place", justify="right")
    table.add_column("picture")
    table.add_column("cosine", justify="right")
    for place, hit in enumerate(hits, 1):
        if hit.error:
            table.add_row("", escape(hit.picture), f"[red]{escape(hit.error)}[/red]")
        else:
            table.add_row(str(place), escape(hit.picture), f"{hit.cosine:.3f}")
    Console().print(table)
