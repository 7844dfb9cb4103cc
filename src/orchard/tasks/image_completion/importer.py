"""Official models of pixels with their palette."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchard.data.palette import FILE, read_palette
from orchard.errors import OrchardError, UsageError
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
    palette.save(wanted.out)
    save_portable(wanted.out, official.model, official.about)
    return Imported(official, remarks=(f"its palette is {found[0].name}'s",))
