"""`orchard import`: an official checkpoint becomes an Orchard model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchard.cli.output import Json, emit, parse_settings


def import_model(
    name: Annotated[str, typer.Argument(help="The variant that the checkpoint is of, such as vit_base_patch16_224.")],
    checkpoint: Annotated[Path, typer.Argument(help="A .npz, .safetensors (or its index), .pth, .pt or .bin file.")],
    out: Annotated[Path, typer.Option(help="Folder for the model; it must not exist.")],
    source: Annotated[
        str | None, typer.Option(help="Whose names the file has: google, timm, torchvision, hf. Default: found out.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A field of the configuration, such as --set image_size=384.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn an official checkpoint into a portable model; every name and shape in it must fit."""
    from orchard.weights.official import import_official

    about, went = import_official(name, checkpoint, out, source, **parse_settings(settings or []))
    answer = {
        "out": str(out),
        "model": about.model,
        "origin": about.origin,
        "tensors": len(went),
        "classes": len(about.classes),
        "preprocess": about.preprocess,
        "architecture": about.architecture,
    }

    def show(_: object) -> None:
        size = "x".join(str(side) for side in about.preprocess["size"])
        print(f"{name} from {about.origin}: {len(went)} tensors, nothing left over")
        print(f"{len(about.classes)} classes, pictures of {size}; written to {out}")
        print(f"preprocessing: {about.preprocess}; if the checkpoint was trained otherwise, say so in config.json")

    emit(answer, as_json, show)
