"""`orchard import`: an official checkpoint becomes an Orchard model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchard.cli.output import Json, emit, parse_settings, tell
from orchard.terminal import note

if TYPE_CHECKING:
    from orchard.tasks.importing import Imported


def import_model(
    name: Annotated[
        str, typer.Argument(help="The variant that the checkpoint is of, such as vit_base_patch16_224, or timm:NAME.")
    ],
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="A .npz, .safetensors (or its index), .pth, .pt, .ckpt or .bin file, or its folder; or by name, to be "
            "fetched: hub:OWNER/NAME[@REVISION], torchvision:IMAGENET1K_V1, card:openai."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the model; it must not exist.")],
    source: Annotated[
        str | None, typer.Option(help="Whose names the file has, such as google, timm, hf. Default: detected.")
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(help="vocab.json, then merges.txt; a vocab.txt; CLIP's merges; a painter's VQGAN."),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Of a painter: its VQGAN's variant, or the folder of a image tokenizer.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A field of the configuration, such as --set image_size=384.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert an official checkpoint to an Orchard model; every name and shape in it must match."""
    from orchard.app.importing import import_checkpoint

    done = import_checkpoint(name, checkpoint, out, source, files or [], tokenizer, parse_settings(settings or []))
    about, pictures = done.official.about, done.pictures
    ignored = [*done.official.ignored, *(pictures.ignored if pictures else ())]
    answer = {
        "out": str(out),
        "model": about.model,
        "origin": about.origin,
        "tensors": len(done.official.mapping),
        "ignored": len(ignored),
        "classes": len(about.classes),
        "preprocess": about.preprocess,
        "architecture": about.architecture,
        "text_tokenizer": done.words,
        "picture_tokenizer": pictures.about.model if pictures else "",
    }
    for remark in (*done.official.remarks, *done.remarks):
        note(remark)
    emit(answer, as_json, lambda _: show(name, out, done, ignored))


def show(name: str, out: Path, done: Imported, ignored: list[str]) -> None:
    about, pictures = done.official.about, done.pictures
    left = (
        f"{len(ignored)} ignored that are no part of it, '{ignored[0]}' among them" if ignored else "nothing left over"
    )
    tell(f"{name} from {about.origin}: {len(done.official.mapping)} tensors, {left}")
    if pictures:
        tell(f"{pictures.about.model} as its image tokenizer: {len(pictures.mapping)} tensors")
    if done.words:
        tell(f"words by {done.words}")
    if about.classes:
        tell(f"{len(about.classes)} classes")
    if about.preprocess:
        size = "x".join(str(side) for side in about.preprocess["size"])
        tell(f"pictures of {size}, preprocessing: {about.preprocess}")
        tell("if the checkpoint was trained otherwise, say so in config.json")
    tell(f"written to {out}")
