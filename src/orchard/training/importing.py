"""Official checkpoints with what they need beside the weights: a text tokenizer, a painter's picture tokenizer.

A checkpoint is a file, or a folder as the Hugging Face Hub and EasyNLP lay it out: weights, and the files of a
vocabulary beside them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from orchard.cards import card_of, variant_names
from orchard.data.contracts import Preprocess
from orchard.data.tokenizers import Tokenizer
from orchard.errors import OrchardError, UsageError
from orchard.inference.caption_ids import CaptionIds
from orchard.inference.image_text import MERGES
from orchard.inference.picture_codes import FOLDER as PICTURE_FOLDER
from orchard.inference.picture_codes import PictureTokenizer, read_picture_tokenizer
from orchard.models.text_to_image import dalle_names, painter_names
from orchard.training.jobs.text_tokenizer import FOLDER as TEXT_FOLDER
from orchard.training.jobs.text_tokenizer import make_text_tokenizer
from orchard.training.settings import TextSettings
from orchard.weights.foreign import PICKLES, read_checkpoint
from orchard.weights.official import Official, read_official, refuse_existing
from orchard.weights.portable import save_portable

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")  # of a folder, the first there is
VOCABULARIES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"), ("vocab.txt",), (MERGES,))
PAINTERS_VQGAN = "vqgan_f16_16384"  # what EasyNLP's painters write for


@dataclass(frozen=True)
class Imported:
    """What was written, and what a person should know of it."""

    official: Official
    words: str  # which files the text tokenizer was made of; empty where there is none
    pictures: Official | None  # the picture tokenizer that came with it
    remarks: tuple[str, ...]


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
    is the variant which that VQGAN is of, or the run or model folder of a picture tokenizer. Raises OrchardError for
    all that does not fit together.
    """
    refuse_existing(out)
    task = card_of(name).task
    file = _weights_of(checkpoint)
    words = [path for path in files if not _is_checkpoint(path)]
    others = [path for path in files if _is_checkpoint(path)]
    if others and (task != "text-to-image" or len(others) > 1):
        raise UsageError(f"{others[-1]}: expected files of a vocabulary, and for a painter one checkpoint of its VQGAN")
    if task in ("image-classification", "image-tokenization") and (words or tokenizer):
        raise UsageError(f"{name} reads no text and writes no codes: --files and --tokenizer are for models that do")
    words = words or _beside(checkpoint)
    tensors = read_checkpoint(file)
    if task == "text-to-image":
        own, drawn = _apart(tensors)
        official = read_official(name, own, source, overrides or {}, str(file))
        return _painter(official, drawn, others, tokenizer, words, out, file)
    official = read_official(name, tensors, source, overrides or {}, str(file))
    facts: dict[str, Any] = {}
    remarks: tuple[str, ...] = ()
    found = None
    if task == "text-generation" and words:
        found = text_tokenizer(words)
        vocabulary = official.about.architecture["vocabulary"]
        if found.vocabulary > vocabulary:
            raise OrchardError(f"{words[0]} makes {found.vocabulary} tokens, the model of {file} has {vocabulary}")
        facts[TEXT_FOLDER] = found.fingerprint
    elif task in ("text-generation", "zero-shot-image-classification") and not words:
        wanted = MERGES if task != "text-generation" else "vocab.json --files merges.txt"
        remarks = (f"without a text tokenizer it reads no words: --files {wanted}, or a folder that holds them",)
    save_portable(out, official.model, replace(official.about, facts=facts))
    if found is not None:
        found.save(out / TEXT_FOLDER)
    elif words and task == "zero-shot-image-classification":
        if [path.name for path in words] != [MERGES]:
            raise UsageError(f"{words[0]}: a CLIP of OpenAI's reads words by {MERGES}")
        shutil.copyfile(words[0], out / MERGES)
    return Imported(official, ", ".join(path.name for path in words), None, remarks)


def _apart(tensors: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """What paints and, where the file holds it too, its picture tokenizer."""
    for names in (painter_names, dalle_names):
        if any(key.startswith(names.TOKENIZER) for key in tensors):
            return names.split_checkpoint(tensors)
    return tensors, {}


def _painter(
    official: Official,
    drawn: Mapping[str, Tensor],
    others: Sequence[Path],
    tokenizer: str | None,
    words: Sequence[Path],
    out: Path,
    file: Path,
) -> Imported:
    """A painter's folder, as a training leaves it: weights, `picture_tokenizer` and `text_tokenizer`."""
    sizes = official.about.architecture
    pictures: Official | None = None
    given: PictureTokenizer | None = None
    if drawn or others:
        variant = tokenizer or PAINTERS_VQGAN
        if variant not in variant_names():
            raise UsageError(f"--tokenizer {variant}: expected the variant which the VQGAN of {file} is of")
        try:
            pictures = read_official(variant, drawn or others[0], None, {}, str(file) if drawn else str(others[0]))
        except OrchardError as error:
            raise OrchardError(f"{error} --tokenizer names the variant that its VQGAN is of") from None
        given = PictureTokenizer(
            out / PICTURE_FOLDER, pictures.about, pictures.model, Preprocess.from_json(pictures.about.preprocess)
        )
    elif tokenizer:
        given = read_picture_tokenizer(tokenizer)
    if given is None or not words:
        wanted = "its VQGAN (--files FILE, or --tokenizer FOLDER)" if given is None else "its vocab.txt (--files)"
        raise UsageError(f"{file}: a painter needs {wanted} to paint")
    found = text_tokenizer(words)
    ids = CaptionIds(found, sizes["text_length"])
    facts = {"picture_tokenizer": given.fingerprint, "grid": list(given.grid), "text_length": ids.length}
    rows, columns = given.grid
    if (rows * columns, given.codes) != (sizes["image_length"], sizes["codes"]):
        raise OrchardError(
            f"{file} paints with {sizes['image_length']} codes of {sizes['codes']}, {given.about.model} has "
            f"{rows * columns} of {given.codes}; name its variant or folder with --tokenizer"
        )
    if ids.vocabulary != sizes["text_vocabulary"]:
        raise OrchardError(
            f"{words[0]} makes {ids.vocabulary} word ids, the model of {file} has {sizes['text_vocabulary']}"
        )
    save_portable(out, official.model, replace(official.about, facts=facts))
    given.save(out / PICTURE_FOLDER)
    found.save(out / TEXT_FOLDER)
    return Imported(official, ", ".join(path.name for path in words), pictures, ())


def text_tokenizer(files: Sequence[Path]) -> Tokenizer:
    """One list of pieces is a WordPiece, two files are a byte-level BPE."""
    kinds = {1: "wordpiece", 2: "bpe"}
    if len(files) not in kinds:
        raise UsageError(f"{files[0]} and {len(files) - 1} more: expected vocab.json and merges.txt, or one vocab.txt")
    ordered = sorted(files, key=lambda path: path.suffix != ".json")
    settings = TextSettings.model_validate(
        {"tokenizer": kinds[len(files)], "files": tuple(str(path) for path in ordered)}
    )
    return make_text_tokenizer(settings, (), None)


def _weights_of(checkpoint: Path) -> Path:
    if not checkpoint.is_dir():
        return checkpoint
    there = [checkpoint / name for name in WEIGHTS if (checkpoint / name).is_file()]
    if not there:
        raise UsageError(f"{checkpoint} holds no checkpoint; expected {', '.join(WEIGHTS)} in it, or name the file")
    return there[0]


def _beside(checkpoint: Path) -> list[Path]:
    """The files of a vocabulary in a folder that is a checkpoint."""
    for names in VOCABULARIES:
        if all((checkpoint / name).is_file() for name in names):
            return [checkpoint / name for name in names]
    return []


def _is_checkpoint(path: Path) -> bool:
    return path.suffix in (*PICKLES, ".safetensors")
