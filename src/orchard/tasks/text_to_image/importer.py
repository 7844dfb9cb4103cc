"""Official text-to-image models with their text tokenizer and their image tokenizer."""

from __future__ import annotations

from dataclasses import replace

from orchard.cards import variant_names
from orchard.data.contracts import Preprocess
from orchard.data.text_tokenizer import FOLDER as TEXT_FOLDER
from orchard.data.text_tokenizer import read_vocabulary
from orchard.errors import OrchardError, UsageError
from orchard.models import landmark_of
from orchard.tasks.image_tokenization.image_tokenizer import FOLDER as PICTURE_FOLDER
from orchard.tasks.image_tokenization.image_tokenizer import ImageTokenizer, read_image_tokenizer
from orchard.tasks.importing import Checkpoint, Imported
from orchard.tasks.text_to_image.caption_ids import CaptionIds
from orchard.weights.official import read_official
from orchard.weights.portable import Official, save_portable


def complete(wanted: Checkpoint) -> Imported:
    """Write a painter's folder as a training leaves it: weights, `picture_tokenizer` and `text_tokenizer`."""
    if len(wanted.others) > 1:
        raise UsageError(f"{wanted.others[-1]}: expected files of a vocabulary, and one checkpoint of its VQGAN")
    landmark = landmark_of(wanted.name)
    own, drawn = landmark.split_checkpoint(wanted.tensors) if landmark.split_checkpoint else (wanted.tensors, {})
    official = wanted.read(own)
    file, out, words, others, tokenizer = wanted.file, wanted.out, wanted.vocabulary, wanted.others, wanted.tokenizer
    sizes = official.about.architecture
    pictures: Official | None = None
    given: ImageTokenizer | None = None
    if drawn or others:
        variant = tokenizer or str(landmark.image_tokenizer)
        if variant not in variant_names():
            raise UsageError(f"--tokenizer {variant}: expected the variant which the VQGAN of {file} is of")
        try:
            pictures = read_official(variant, drawn or others[0], None, {}, str(file) if drawn else str(others[0]))
        except OrchardError as error:
            raise OrchardError(f"{error} --tokenizer names the variant that its VQGAN is of") from None
        given = ImageTokenizer(
            out / PICTURE_FOLDER, pictures.about, pictures.model, Preprocess.from_json(pictures.about.preprocess)
        )
    elif tokenizer:
        given = read_image_tokenizer(tokenizer)
    if given is None or not words:
        missing = "its VQGAN (--files FILE, or --tokenizer FOLDER)" if given is None else "its vocab.txt (--files)"
        raise UsageError(f"{file}: a painter needs {missing} to paint")
    found = read_vocabulary(words)
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
    return Imported(official, ", ".join(path.name for path in words), pictures)
