"""`orchard export`: a trained model for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orchard.cli.output import Json, emit


def export(
    run: Annotated[Path, typer.Argument(help="Run or model folder.")],
    form: Annotated[str, typer.Option("--format", help="onnx, or torch for torch.export.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="The file; beside the model's weights by itself.")] = None,
    as_json: Json = False,
) -> None:
    """Write a model as ONNX or torch.export, after running it beside the original."""
    from orchard.errors import unknown

    if form not in ("onnx", "torch"):
        raise unknown("format", form, ["onnx", "torch"])
    from orchard.inference.export import BATCHES, export
    from orchard.inference.loading import load

    path, difference = export(load(run), form, out)
    answer = {
        "format": form,
        "path": str(path),
        "bytes": path.stat().st_size,
        "max_abs_difference": difference,
        "batches_compared": list(BATCHES),
    }
    emit(answer, as_json, show)


def show(answer: dict[str, Any]) -> None:
    sizes = " and ".join(map(str, answer["batches_compared"]))
    print(
        f"{answer['path']}: {answer['bytes'] / 1e6:.1f} MB; run beside the original at batches of {sizes}, largest "
        f"difference {answer['max_abs_difference']:.1e}"
    )
