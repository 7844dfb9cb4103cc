"""`import`: official checkpoints become models, with what they need beside the weights.

A checkpoint is a file, or a folder as the Hugging Face Hub and EasyNLP lay it out: weights, and the files of a
vocabulary beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchard.errors import UsageError
from orchard.tasks.importing import Checkpoint, Imported
from orchard.tasks.registry import task_of
from orchard.weights.beside import WEIGHT_FILES
from orchard.weights.foreign import read_checkpoint
from orchard.weights.official import new_model_folder, refuse_existing
from orchard.weights.pickles import PICKLES
from orchard.weights.portable import save_portable

VOCABULARIES = (
    ("vocab.json", "merges.txt"),
    ("encoder.json", "vocab.bpe"),
    ("vocab.txt",),
    ("bpe_simple_vocab_16e6.txt.gz",),
)


def import_checkpoint(
    name: str,
    checkpoint: Path,
    out: Path,
    source: str | None = None,
    files: Sequence[Path] = (),
    tokenizer: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Imported:
    """Write the portable model of variant `name` into `out`, which must not exist, ready for its task where that goes.

    `files`: those of a text tokenizer (vocab.json and merges.txt, a vocab.txt, CLIP's own), without them what lies in
    the checkpoint's folder; of a painter also the file of its VQGAN, where the checkpoint does not hold it. `tokenizer`
    is the variant which that VQGAN is of, or the run or model folder of an image tokenizer. Raises OrchardError for
    all that does not fit together.
    """
    refuse_existing(out)
    task = task_of(name)
    file = _weights_of(checkpoint)
    vocabulary = [path for path in files if not _is_checkpoint(path)]
    others = [path for path in files if _is_checkpoint(path)]
    if task.importer is None and (files or tokenizer):
        raise UsageError(f"{name} reads no text and writes no codes: --files and --tokenizer are for models that do")
    tensors = read_checkpoint(file)
    with new_model_folder(out) as folder:
        wanted = Checkpoint(
            name, file, tensors, source, overrides or {}, vocabulary or _beside(checkpoint), others, tokenizer, folder
        )
        if task.importer is not None:
            return task.load(task.importer)(wanted)  # type: ignore[no-any-return]
        official = wanted.read()
        save_portable(folder, official.model, official.about)
        return Imported(official)


def _weights_of(checkpoint: Path) -> Path:
    if not checkpoint.is_dir():
        return checkpoint
    there = [checkpoint / name for name in WEIGHT_FILES if (checkpoint / name).is_file()]
    if not there:
        raise UsageError(
            f"{checkpoint} holds no checkpoint; expected {', '.join(WEIGHT_FILES)} in it, or name the file"
        )
    return there[0]


def _beside(checkpoint: Path) -> list[Path]:
    """The files of a vocabulary in a folder that is a checkpoint."""
    for names in VOCABULARIES:
        if all((checkpoint / name).is_file() for name in names):
            return [checkpoint / name for name in names]
    return []


def _is_checkpoint(path: Path) -> bool:
    return path.name.endswith((*PICKLES, ".safetensors"))
