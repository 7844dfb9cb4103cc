"""The text tokenizer of a training: from files, learned from the training texts, or that of the model gone on with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.data.settings import TextSettings
from orchard.data.tokenizers import Characters, Pieces, Tokenizer, load_tokenizer, read_bpe, read_wordpiece
from orchard.data.train_tokenizers import train_bpe, train_unigram, train_wordpiece, train_words
from orchard.errors import OrchardError, UsageError
from orchard.weights.folders import model_folder

TRAINED = {"wordpiece": train_wordpiece, "unigram": train_unigram, "words": train_words}
FOLDER = "text_tokenizer"  # in the folder of a model that reads text


def make_text_tokenizer(
    settings: TextSettings, texts: Iterable[str], start_from: str | None, specials: Sequence[str] = ()
) -> Tokenizer:
    """What `settings` ask for; `texts` are read, once, only where something is learned from them.

    With `start_from` (a run or model folder) it is the tokenizer of that model: another would give its words other
    ids. `specials` are roles ("end", "pad") that a tokenizer which is made here shall have ids for; one of files has
    those of its files. Raises UsageError for files that are missing or too many.
    """
    if start_from:
        return read_text_tokenizer(model_folder(Path(start_from)))
    if settings.tokenizer == "whitespace":
        raise UsageError("text.tokenizer=whitespace is for text-generation; bpe reads any text")
    wanted = {"wordpiece": (0, 1), "bpe": (0, 2)}.get(settings.tokenizer, (0,))
    if len(settings.files) not in wanted:
        files = {
            "wordpiece": "one, a vocab.txt, or none to learn one",
            "bpe": "two, vocab.json and merges.txt, or none to learn one",
        }
        expected = files.get(settings.tokenizer, "none")
        raise UsageError(f"text.files names {len(settings.files)} files; text.tokenizer={settings.tokenizer} "
                         f"expects {expected}")  # fmt: skip
    if settings.tokenizer == "bytes":
        return Characters("", "bytes", specials)
    if settings.tokenizer == "characters":
        return Characters(sorted(set().union(*map(set, texts))), "unknown", specials)
    if settings.tokenizer == "chinese":
        return Characters.chinese(specials)
    if settings.tokenizer == "bpe":
        if settings.files:
            return read_bpe(*settings.files)
        return train_bpe(texts, settings.vocabulary, specials or ("end",))
    if settings.files:
        return _wordpiece(Path(settings.files[0]))
    return TRAINED[settings.tokenizer](texts, settings.vocabulary, specials)


def tokenizer_facts(tokenizer: Tokenizer) -> dict[str, Any]:
    """What run.json says of a tokenizer."""
    return {
        "kind": tokenizer.kind,
        "vocabulary": tokenizer.vocabulary,
        "specials": dict(tokenizer.specials),
        "fingerprint": tokenizer.fingerprint,
    }


def read_text_tokenizer(model: Path) -> Tokenizer:
    """The text tokenizer in a portable model's folder; OrchardError for a model that reads no text."""
    if not (model / FOLDER).is_dir():
        raise OrchardError(f"{model} has no {FOLDER}; expected the folder of a model that reads text")
    return load_tokenizer(model / FOLDER)


def _wordpiece(path: Path) -> Pieces:
    """A vocabulary without a capital letter was made of text in lower case, and reads such text only."""
    found = read_wordpiece(path, lowercase=False)
    marks = set(found.roles.values())
    words = (word for word in found.inner.get_vocab() if word not in marks and not word.startswith("["))
    cased = any(word != word.lower() for word in words)
    return found if cased else read_wordpiece(path, lowercase=True)


def read_vocabulary(files: Sequence[Path]) -> Tokenizer:
    """One list of pieces is a WordPiece, two files are a byte-level BPE."""
    kinds = {1: "wordpiece", 2: "bpe"}
    if len(files) not in kinds:
        raise UsageError(f"{files[0]} and {len(files) - 1} more: expected vocab.json and merges.txt, or one vocab.txt")
    ordered = sorted(files, key=lambda path: path.suffix != ".json")
    settings = TextSettings.model_validate(
        {"tokenizer": kinds[len(files)], "files": tuple(str(path) for path in ordered)}
    )
    return make_text_tokenizer(settings, (), None)


def add_special_tokens(ids: Sequence[int], context: int, start: int, end: int) -> Tensor:
    """A sentence as the text tower reads it, (context,) int64: start, the ids, end, and zeros behind.

    What is too long is cut, and the end stays. The tower finds the end as the largest id of the row, so `end` must be
    larger than every other id; ValueError names one that is not.
    """
    kept = [start, *ids[: context - 2]]
    if max(kept) >= end:
        raise ValueError(f"id {max(kept)} is not smaller than the end token's, {end}, which must be the largest of all")
    return F.pad(torch.tensor([*kept, end]), (0, context - len(kept) - 1))


class SentenceEncoder:
    """Sentences as a text tower reads them, (context,) int64: see `add_special_tokens`."""

    def __init__(self, ids: Callable[[str], Sequence[int]], context: int, start: int, end: int):
        self.ids, self.context, self.start, self.end = ids, context, start, end

    def __call__(self, text: str) -> Tensor:
        return add_special_tokens(self.ids(text), self.context, self.start, self.end)

    @property
    def most(self) -> int:
        """Tokens of a sentence that are read; what comes behind is cut."""
        return self.context - 2

    def length(self, text: str) -> int:
        return len(self.ids(text))


def cut_words(what: str, lengths: Iterable[int], most: int, setting: str = "") -> list[str]:
    """A line where some of `lengths` are more tokens than the `most` that are read; `setting` reads them whole."""
    total = cut = longest = 0
    for length in lengths:
        total, cut, longest = total + 1, cut + (length > most), max(longest, length)
    whole = f" (--set {setting}={longest} reads them whole)" if setting else ""
    line = f"{cut:,} of {total:,} {what} are longer than {most} tokens and are cut; the longest has {longest}{whole}"
    return [line] if cut else []
