"""`import`: official checkpoints become models, with what they need beside the weights.

A checkpoint is a file, or a folder as the Hugging Face Hub and EasyNLP lay it out: weights, and the files of a
vocabulary beside them. Those of the Hub, of torchvision and of the cards are fetched by their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchard.errors import UsageError
from orchard.tasks.importing import Checkpoint, Imported
from orchard.tasks.registry import task_of
from orchard.weights.by_name import find_weights
from orchard.weights.foreign import read_checkpoint
from orchard.weights.official import new_model_folder, refuse_existing
from orchard.weights.pickles import PICKLES
from orchard.weights.portable import save_portable


def import_checkpoint(
    name: str,
    checkpoint: str | Path,
    out: Path,
    source: str | None = None,
    files: Sequence[Path] = (),
    tokenizer: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Imported:
    """Write the portable model of variant `name` into `out`, which must not exist, ready for its task where that goes.

    `checkpoint`: a file, a folder, or a name that it is fetched by, such as `hub:timm/resnet50.a1_in1k` (`by_name.py`).
    `files`: those of a text tokenizer (vocab.json and merges.txt, a vocab.txt, CLIP's own), without them what lies in
    the checkpoint's folder; of a painter also the file of its VQGAN, where the checkpoint does not hold it. `tokenizer`
    is the variant which that VQGAN is of, or the run or model folder of an image tokenizer. Raises OrchardError for
    all that does not fit together.
    """
    refuse_existing(out)
    task = task_of(name)
    vocabulary = [path for path in files if not _is_checkpoint(path)]
    others = [path for path in files if _is_checkpoint(path)]
    if task.importer is None and (files or tokenizer):
        raise UsageError(f"{name} reads no text and writes no codes: --files and --tokenizer are for models that do")
    found = find_weights(name, checkpoint)
    tensors = read_checkpoint(found.file)
    with new_model_folder(out) as folder:
        wanted = Checkpoint(
            name, found, tensors, source, overrides or {}, vocabulary or found.vocabulary, others, tokenizer, folder
        )
        if task.importer is not None:
            return task.load(task.importer)(wanted)  # type: ignore[no-any-return]
        official = wanted.read()
        save_portable(folder, official.model, official.about)
        return Imported(official)


def _is_checkpoint(path: Path) -> bool:
    return path.name.endswith((*PICKLES, ".safetensors"))
