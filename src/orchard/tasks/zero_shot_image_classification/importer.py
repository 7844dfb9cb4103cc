"""Official CLIPs with OpenAI's vocabulary."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

from orchard.data.clip_bpe import clip_tokens
from orchard.errors import OrchardError, UsageError
from orchard.files import read_json
from orchard.tasks.importing import Checkpoint, Imported
from orchard.tasks.zero_shot_image_classification.matcher import MERGES
from orchard.weights.portable import save_portable

HF = ["vocab.json", "merges.txt"]  # what transformers makes of OpenAI's file


def complete(wanted: Checkpoint) -> Imported:
    """Write the model, and OpenAI's vocabulary beside it where it is there."""
    if wanted.others:
        raise UsageError(f"{wanted.others[0]}: expected files of a vocabulary")
    official = wanted.read()
    names = [path.name for path in wanted.vocabulary]
    if names and names not in ([MERGES], HF):
        raise UsageError(
            f"{wanted.vocabulary[0]}: a CLIP of OpenAI's reads words by {MERGES}, or by {' and '.join(HF)}"
        )
    if names == HF:
        _check_same(*wanted.vocabulary)
    save_portable(wanted.out, official.model, official.about)
    if not names:
        remark = f"without a text tokenizer it reads no words: --files {MERGES}, or a folder that holds them"
        return Imported(official, remarks=(remark,))
    if names == HF:  # the lines are those of OpenAI's file that count
        (wanted.out / MERGES).write_bytes(gzip.compress(wanted.vocabulary[1].read_bytes(), mtime=0))
    else:
        shutil.copyfile(wanted.vocabulary[0], wanted.out / MERGES)
    return Imported(official, ", ".join(names))


def _check_same(ids: Path, merges: Path) -> None:
    """OrchardError where the ids are not those that OpenAI's order of tokens gives."""
    if read_json(ids) != clip_tokens(merges):
        raise OrchardError(f"{ids} numbers its tokens otherwise than OpenAI's CLIPs do, whose words {merges} makes")
