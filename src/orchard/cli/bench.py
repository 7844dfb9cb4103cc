"""`orchard bench`: speed beside the peer, in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orchard.cli.output import Json, emit, tell
from orchard.terminal import note


def bench(
    name: Annotated[str, typer.Argument(help="Name of a variant.")],
    against: Annotated[
        str,
        typer.Option(
            help="timm, torchvision, transformers (or with a name: timm:resnet50), onnxruntime or openvino; for "
            "generation transformers, ctranslate2 or recompute."
        ),
    ],
    mode: Annotated[str, typer.Option(help="inference, training or generation.")] = "inference",
    batch: Annotated[int | None, typer.Option(min=1, help="Samples per batch; 8, or 1 for generation.")] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or (generation) int8.")] = "auto",
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of timing; 11, or 3 for generation.")] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens to generate.")] = 256,
    run: Annotated[Path | None, typer.Option(help="Also count agreement with float32 of this trained model.")] = None,
    pictures: Annotated[str | None, typer.Option(help="Images for that: any data set.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print one row of a Markdown table.")] = False,
    as_json: Json = False,
) -> None:
    """Time a model and its peer in turns, with the same weights, after comparing their outputs."""
    from orchard.errors import UsageError

    if (run is None) != (pictures is None):
        raise UsageError("agreement is counted with --run RUN and --pictures DATA together")
    from orchard.app.bench import bench as run_bench

    note(f"{name} against {against}, {mode}: compiling first; leave the machine alone meanwhile")
    result = run_bench(name, against, mode, batch=batch, precision=precision, rounds=rounds, tokens=tokens)
    if run is not None and pictures is not None:
        from orchard.tasks.image_classification.agreement import agreement

        result["agreement"] = agreement(run, pictures, batch=batch or 8, precision=precision)  # type: ignore[arg-type]
    emit(result, as_json, lambda found: tell(row(found)) if markdown else show(found))


def row(found: dict[str, Any]) -> str:
    """One row for the table of docs/benchmarks.md."""
    cells = [
        found["name"],
        found["peer"],
        f"{found['mode']}, {found['precision']}, batch {found['batch']}",
        *(f"{1000 * found[side]['median_s']:.1f}" for side in ("ours", "peer_best", "peer_default")),
        f"{found['ratio_default']:.2f}",
        f"{found['ratio_best']:.2f}",
        f"{found['limit_fraction']:.0%}",
    ]
    return f"| {' | '.join(cells)} |"


def show(found: dict[str, Any]) -> None:
    """A table for a person."""
    from rich.table import Table

    from orchard.console import Console

    title = f"{found['name']} and {found['peer']}: {found['mode']}, {found['precision']}, batch {found['batch']}"
    table = Table("side", "how", title=title, title_justify="left")
    for column in ("ms a batch", "a second", "ours is faster by"):
        table.add_column(column, justify="right")
    ratios = {"ours": "", "peer_best": f"{found['ratio_best']:.2f}x", "peer_default": f"{found['ratio_default']:.2f}x"}
    for side, ratio in ratios.items():
        figures = found[side]
        seconds, throughput = f"{1000 * figures['median_s']:.1f}", f"{figures['throughput']:.1f}"
        table.add_row(side.replace("_", " at its "), figures["how"], seconds, throughput, ratio)
    console = Console()
    console.print(table)
    if "read_rate" in found:
        limit = f"memory is read at {found['read_rate'] / 1e9:.1f} GB/s, of which reading the weights is"
    else:
        limit = (
            f"a {found['precision']} matrix product reaches {found['matrix_rate'] / 1e9:,.0f} GFLOP/s, of which ours is"
        )
    console.print(f"{found['device']}: {limit} {found['limit_fraction']:.0%}")
    if "agreement" in found:
        same = found["agreement"]
        console.print(
            f"top-1 agreement with float32 on {same['pictures']} pictures: {same['agreement']:.2%} (median margin "
            f"{same['margin']:.2f}, median error {same['error']:.3f})",
        )
