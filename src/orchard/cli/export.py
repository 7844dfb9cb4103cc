"""`orchard export`: a trained model for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orchard.cli.output import Json, emit, tell


def export(
    run: Annotated[Path, typer.Argument(help="Run or model folder.")],
    form: Annotated[str, typer.Option("--format", help="onnx, or torch for torch.export.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="The file; default: beside the model's weights.")] = None,
    with_preprocessing: Annotated[
        bool, typer.Option("--with-preprocessing", help="Of a classifier: uint8 pixels in, probabilities out.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Export a model to ONNX or torch.export, and check the file against the original.

    A picture tokenizer becomes two files (encode, decode), and so does CLIP (image, text). Beside a file that takes
    images a short program is written, which prepares them by hand and asks the model.
    """
    from orchard.errors import unknown

    if form not in ("onnx", "torch"):
        raise unknown("format", form, ["onnx", "torch"])
    from orchard.app.export import export

    written = export(run, form, out, with_preprocessing=with_preprocessing)
    from orchard.inference.export import BATCHES

    files = [
        {
            "path": str(one.path),
            "function": one.entry,
            "bytes": one.path.stat().st_size,
            "max_abs_difference": one.difference,
            "program": str(one.program) if one.program else None,
        }
        for one in written
    ]
    answer = {"format": form, "batches_compared": list(BATCHES), "files": files}
    emit(answer, as_json, show)


def show(answer: dict[str, Any]) -> None:
    sizes = " and ".join(map(str, answer["batches_compared"]))
    for file in answer["files"]:
        kind = "share of other codes" if file["function"] == "encode" else "largest difference"
        tell(
            f"{file['path']}: {file['bytes'] / 1e6:.1f} MB; run beside the original at batches of {sizes}, {kind} "
            f"{file['max_abs_difference']:.1e}"
        )
        if file["program"]:
            tell(f"{file['program']}: asks it about images, without Orchard")
