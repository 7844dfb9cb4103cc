"""Official models of pixels with their palette."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from orchard.data.contracts import Preprocess
from orchard.data.palette import FILE, read_palette
from orchard.errors import OrchardError, UsageError
from orchard.models import picture_size
from orchard.tasks.importing import Checkpoint, Imported
from orchard.weights.portable import save_portable

BESIDE = (FILE, "kmeans_centers.npy", "preprocessor_config.json")  # what palettes are called beside weights


def complete(wanted: Checkpoint) -> Imported:
    """Write the model and the palette: the file that is named, or one that lies beside the checkpoint."""
    named = [*wanted.vocabulary, *wanted.others]
    if len(named) > 1 or wanted.tokenizer:
        raise UsageError("expected one file of a palette: kmeans_centers.npy, or a preprocessor_config.json")
    official = wanted.read()
    config: Any = official.model.config
    found: list[Path] = named or [path for name in BESIDE if (path := wanted.file.parent / name).is_file()]
    if not found:
        save_portable(wanted.out, official.model, official.about)
        remark = f"without a palette it draws nothing: --files kmeans_centers.npy, or put it there as {FILE}"
        return Imported(official, remarks=(remark,))
    palette = read_palette(found[0])
    if len(palette) != config.vocabulary or palette.channels != config.in_channels:
        raise OrchardError(
            f"{found[0]} has {len(palette)} colours of {palette.channels} channels, the model takes "
            f"{config.vocabulary} of {config.in_channels}"
        )
    half = (0.5,) * palette.channels
    preprocess = Preprocess(picture_size(config), palette.channels, half, half)
    palette.save(wanted.out)
    save_portable(wanted.out, official.model, replace(official.about, preprocess=preprocess.to_json()))
    return Imported(official, found[0].name)
