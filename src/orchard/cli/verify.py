"""`orchard verify`: the proof, run here and now."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from orchard.cli.output import Json, emit, tell
from orchard.terminal import note


def verify_models(
    names: Annotated[list[str] | None, typer.Argument(help="Variants, or landmarks for all of their variants.")] = None,
    all_models: Annotated[bool, typer.Option("--all", help="Every landmark.")] = False,
    golden: Annotated[Path | None, typer.Option(help="Folder of stored outputs of official code.")] = None,
    write: Annotated[Path | None, typer.Option(help="Also write one page per family to this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Compare models with their official implementations: same weights, same input, largest difference."""
    from orchard.cards import all_cards
    from orchard.errors import OrchardError, UsageError
    from orchard.files import atomic, disk_error

    if all_models == bool(names):
        raise UsageError("name what to verify, such as orchard verify vit_nano, or say --all")
    from orchard.weights.golden import GOLDEN
    from orchard.weights.proof import verify
    from orchard.weights.proofs_page import proofs_pages

    wanted = [variant for card in all_cards().values() for variant in card.variants] if all_models else names or []
    rows = verify(wanted, golden or GOLDEN)
    emit(rows, as_json, _show)
    if write:
        pages = proofs_pages(rows)
        try:
            write.mkdir(parents=True, exist_ok=True)
            for name, page in pages.items():
                with atomic(write / name) as file:
                    file.write(page.encode())
        except OSError as error:
            raise disk_error(error, write, "pages that were there are whole") from None
        note(f"wrote {len(pages)} pages to {write}")
    failed = [row for row in rows if not row["ok"]]
    if failed:
        raise OrchardError(f"{len(failed)} of {len(rows)} proofs failed, that of {failed[0]['name']} first")


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from orchard.console import Console

    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column("parameters", no_wrap=True, justify="right")
    table.add_column("reference", overflow="fold")
    for head in ("outputs", "losses", "gradients", "proven"):
        table.add_column(head, no_wrap=True)
    for before, row in pairwise([{}, *rows]):
        again = before.get("name") == row["name"]
        figures = (row["max_abs_difference"], row["loss_difference"], row["gradient_difference"])
        table.add_row(
            "" if again else row["name"],
            "" if again else f"{row['parameters']:,}",
            "its landmark's" if row["proof"] == "shared" else row["reference"],
            *("" if figure is None else f"{figure:.1e}" for figure in figures),
            {"own": "yes", "shared": "shared", "size": "size"}[row["proof"]] if row["ok"] else "NO",
        )
    Console().print(table)
    tell("outputs: largest absolute difference, float32 on the CPU; losses: relative, where they are above one")
    tell("gradients: relative to each parameter's largest")
    tell("shared: same code as what was compared, at other sizes; size: no reference, parameters counted")
    for names in dict.fromkeys((row["name"], *row["not_compared"]) for row in rows if row["not_compared"]):
        tell(f"{names[0]}: no reference has {', '.join(names[1:])}")
    for row in rows:
        if not row["ok"]:
            tell(f"{row['name']}: {row['problem'] or 'the difference is larger than ' + str(row['tolerance'])}")
