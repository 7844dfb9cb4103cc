"""Official language models with their text tokenizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchard.data.text_tokenizer import FOLDER, read_vocabulary
from orchard.errors import OrchardError, UsageError
from orchard.tasks.importing import Checkpoint, Imported
from orchard.weights.portable import save_portable


def complete(wanted: Checkpoint) -> Imported:
    """Write the model, and the tokenizer where its files are there."""
    if wanted.others:
        raise UsageError(f"{wanted.others[0]}: expected files of a vocabulary")
    official = wanted.read()
    if not wanted.vocabulary:
        save_portable(wanted.out, official.model, official.about)
        remark = "without a text tokenizer it reads no words: --files vocab.json --files merges.txt, or their folder"
        return Imported(official, remarks=(remark,))
    tokenizer = read_vocabulary(wanted.vocabulary)
    vocabulary: Any = official.about.architecture["vocabulary"]
    if tokenizer.vocabulary > vocabulary:
        raise OrchardError(
            f"{wanted.vocabulary[0]} makes {tokenizer.vocabulary} tokens, the model of {wanted.file} has {vocabulary}"
        )
    save_portable(wanted.out, official.model, replace(official.about, facts={FOLDER: tokenizer.fingerprint}))
    tokenizer.save(wanted.out / FOLDER)
    return Imported(official, ", ".join(path.name for path in wanted.vocabulary))
