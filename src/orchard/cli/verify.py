"""`orchard verify`: the proof, run here and now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orchard.cli.output import Json, emit, note


def verify_models(
    names: Annotated[list[str] | None, typer.Argument(help="Variants, or landmarks for all of their variants.")] = None,
    all_models: Annotated[bool, typer.Option("--all", help="Every landmark.")] = False,
    golden: Annotated[Path | None, typer.Option(help="Folder of the stored cases of official code.")] = None,
    write: Annotated[Path | None, typer.Option(help="Also write the table as a page, such as docs/proofs.md.")] = None,
    as_json: Json = False,
) -> None:
    """Give a model and its reference the same weights and pictures, and print the largest difference."""
    from orchard.cards import all_cards
    from orchard.errors import OrchardError, UsageError

    if all_models == bool(names):
        raise UsageError("name what to verify, such as orchard verify vit_nano, or say --all")
    from orchard.weights.proof import proofs_page, verify
    from orchard.weights.reference import GOLDEN

    wanted = [variant for card in all_cards().values() for variant in card.variants] if all_models else names or []
    rows = verify(wanted, golden or GOLDEN)
    emit(rows, as_json, _show)
    if write:
        write.write_text(proofs_page(rows), encoding="utf-8")
        note(f"wrote {write}")
    failed = [row for row in rows if not row["ok"]]
    if failed:
        raise OrchardError(f"{len(failed)} of {len(rows)} proofs failed, that of {failed[0]['name']} first")


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "parameters", "reference", "outputs", "gradients", "proven", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for row in rows:
        references = row["reference"].split(", ")
        table.add_row(
            row["name"],
            f"{row['parameters']:,}",
            references[0] if len(references) == 1 else f"its landmark's ({len(references)})",
            *("" if row[key] is None else f"{row[key]:.1e}" for key in ("max_abs_difference", "gradient_difference")),
            "yes" if row["ok"] else "NO",
        )
    Console(highlight=False).print(table)
    print("outputs: largest absolute difference, float32 on the CPU; gradients: relative to each parameter's largest")
    for row in rows:
        if not row["ok"]:
            print(f"{row['name']}: {row['problem'] or 'the difference is larger than ' + str(row['tolerance'])}")
