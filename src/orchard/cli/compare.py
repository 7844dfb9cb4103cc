"""`orchard compare`: several models, one budget, one table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from orchard.cli.output import Json, emit, parse_settings


def compare_models(
    models: Annotated[list[str], typer.Argument(help="Variants (see `orchard list`), or timm:NAME.")],
    data: Annotated[str, typer.Option(help="A named set, an image folder, a zip archive of one, or a CSV/TSV.")],
    epochs: Annotated[
        float | None, typer.Option(help="Budget of each model: passes over the data; default: 10.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Budget of each model: minutes of training.")] = None,
    macs: Annotated[
        float | None, typer.Option(help="Budget of each model: multiply-adds of training, such as 5e13.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each, with seeds 0, 1, ...")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder of all runs; default: runs/compare-DATA-BUDGET.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of every training; repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train several models on the same budget and compare them in one table and one plot.

    The same command resumes a stopped comparison; other models are added to its table.
    """
    from orchard.app.compare import Budget, compare
    from orchard.data.kinds import data_name, folder_name
    from orchard.errors import OrchardError, UsageError

    given = {"epochs": epochs, "minutes": minutes, "macs": macs}
    chosen = [(kind, amount) for kind, amount in given.items() if amount is not None] or [("epochs", 10.0)]
    if len(chosen) > 1:
        raise UsageError("one budget at a time: --epochs, --minutes or --macs")
    ((kind, amount),) = chosen
    if not 0 < amount < math.inf:
        raise UsageError(f"--{kind} {amount:g}: expected a number above 0")
    folder = out or Path("runs") / folder_name("compare", data_name(data), f"{kind}{amount:g}")
    budget = Budget(kind, amount)  # type: ignore[arg-type]
    result = compare(models, data, folder, budget=budget, seeds=seeds, settings=parse_settings(settings or []))
    emit(result, as_json, _show)
    failed = [row["model"] for row in result["contestants"] if row["error"]]
    if failed:
        raise OrchardError(f"{len(failed)} of {len(models)} contestants failed: {', '.join(failed)}")


def _show(result: dict[str, Any]) -> None:
    from rich.table import Table

    from orchard.app.compare import in_order
    from orchard.console import Console
    from orchard.report.charts import bytes_text, seconds_text, short

    table = Table(
        "model", result["metric"]["name"].replace("_", " "), "parameters", "MACs", "latency", "throughput", "memory",
        "training",
        box=None, pad_edge=False, title=f"on {result['name']}", title_justify="left",
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    for column in table.columns:
        column.no_wrap = True
    console = Console()
    if not console.is_terminal:
        console.width = 120  # a file or a pipe has room
    metric, percent = result["metric"]["name"], result["metric"]["percent"]
    for row in in_order(result):
        if row["error"]:
            table.add_row(row["model"], "failed")
            continue
        scale, digits, unit = (100, ".1f", " %") if percent else (1, ".4g", "")
        std = f" ± {row['std'] * scale:{digits}}" if row["std"] is not None else ""
        table.add_row(
            row["model"], f"{row[metric] * scale:{digits}}{std}{unit}", short(row["parameters"]),
            short(row["macs"]),
            seconds_text(row["latency_s"]), f"{short(row['pictures_per_second'])}/s", bytes_text(row["memory_bytes"]),
            seconds_text(row["training_seconds"]),
        )  # fmt: skip
    console.print(table)
    for row in result["contestants"]:
        if row["error"]:
            console.print(f"{row['model']}: {row['error']}")
    console.print(f"plot:   {result['out']}/compare.html\ntable:  {result['out']}/compare.csv", soft_wrap=True)
