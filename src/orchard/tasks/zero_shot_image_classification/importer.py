"""Official CLIPs with OpenAI's vocabulary."""

from __future__ import annotations

import shutil

from orchard.errors import UsageError
from orchard.tasks.importing import Checkpoint, Imported
from orchard.tasks.zero_shot_image_classification.matcher import MERGES
from orchard.weights.portable import save_portable


def complete(wanted: Checkpoint) -> Imported:
    """Write the model, and OpenAI's vocabulary beside it where it is there."""
    if wanted.others:
        raise UsageError(f"{wanted.others[0]}: expected files of a vocabulary")
    official = wanted.read()
    names = [path.name for path in wanted.vocabulary]
    if names and names != [MERGES]:
        raise UsageError(f"{wanted.vocabulary[0]}: a CLIP of OpenAI's reads words by {MERGES}")
    save_portable(wanted.out, official.model, official.about)
    if not names:
        remark = f"without a text tokenizer it reads no words: --files {MERGES}, or a folder that holds them"
        return Imported(official, remarks=(remark,))
    shutil.copyfile(wanted.vocabulary[0], wanted.out / MERGES)
    return Imported(official, names[0])
