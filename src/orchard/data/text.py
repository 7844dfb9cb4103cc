"""Text for language models: files, folders and named sets become one long row of tokens per split.

Reading and tokenizing are two steps, as a tokenizer may be learned from the training text that the first one gives.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchard.data.contracts import DataSettings
from orchard.data.tokenizers import Tokenizer
from orchard.errors import OrchardError, UsageError
from orchard.packed import read_bytes

ENDINGS = (".txt", ".txt.gz")
SPLITS = {"train": "train", "valid": "validation", "validation": "validation", "val": "validation", "test": "test"}
NAMED = {"shakespeare": ("input",), "wikitext-2": ("train", "valid", "test")}  # the files that each consists of


@dataclass(frozen=True)
class Texts:
    """What was read: the documents of each split ("train" and "validation" always, "test" mostly)."""

    name: str  # the name by which recipes know it, "text" for a person's own
    source: str  # what the person wrote: a name or a path
    format: str  # "named set", "text file", "text folder"
    reason: str  # how the format was recognised, one sentence
    splits: Mapping[str, tuple[str, ...]]
    fingerprint: str  # sha256 over all of it


@dataclass(frozen=True)
class TextSplit:
    """One split: its tokens (N,) uint16 or uint32, and how much text they are."""

    key: str  # what a person would call it: `shakespeare/train`
    tokens: np.ndarray
    characters: int
    size: int  # bytes of UTF-8
    words: int  # between spaces, and one for the end of each line, as WikiText's are counted

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class TextData:
    """A whole set under one tokenizer."""

    texts: Texts
    tokenizer: Tokenizer
    splits: Mapping[str, TextSplit]
    fingerprint: str  # sha256 over the texts and the tokenizer


def open_text(source: str, settings: DataSettings) -> Texts:
    """Read what `source` is: `shakespeare:FOLDER`, `wikitext-2:FOLDER`, a .txt or .txt.gz file, a folder of them.

    A folder whose files are called train, valid (validation, val) and test is split so (without a validation file, the
    end of train is cut off); other text is cut, in the order of the files' names: the end is the test, what comes
    before it validation. Raises UsageError if there is nothing
    of that name, OrchardError that names the file if it is empty or no UTF-8.
    """
    name, _, folder = source.partition(":")
    if name in NAMED:
        root = folder or settings.root
        if root is None:
            raise UsageError(f"{name} needs a folder with its files: --data {name}:FOLDER, or --set data.root=FOLDER")
        return _named(name, Path(root).expanduser(), source)
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path, source, settings)
    if path.is_file() and path.name.lower().endswith(ENDINGS):
        cut = _split([read_text(path)], settings)
        return _texts("text", source, "text file", "the ending of its name", cut)
    if path.exists():
        raise UsageError(f"{source} is no text; expected a .txt or .txt.gz file, or a folder of them")
    near = difflib.get_close_matches(name.lower(), NAMED, n=2, cutoff=0.6)
    advice = f"did you mean {' or '.join(near)}?" if near else f"texts known by name: {', '.join(NAMED)}"
    raise UsageError(f"there is no file or folder '{source}'; {advice}")


def _folder(path: Path, source: str, settings: DataSettings) -> Texts:
    files = sorted(file for file in path.rglob("*") if file.name.lower().endswith(ENDINGS) and file.is_file())
    if not files:
        raise UsageError(f"{source} has no text; expected files ending in .txt or .txt.gz")
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(SPLITS.get(_stem(file), ""), []).append(file)
    if "train" not in by_split and (settings.training or "" in by_split):
        cut = _split([read_text(file) for file in files], settings)
        return _texts("text", source, "text folder", f"a folder with {len(files)} text files", cut)
    strays = by_split.pop("", []) + [file for group in by_split.values() for file in group[1:]]
    if strays:
        beside = next(iter(by_split.values()))[0].name
        raise OrchardError(
            f"{strays[0]} lies beside {beside} and is no further split; expected one file each for train, validation "
            f"and test, or none of these names"
        )
    splits: dict[str, tuple[str, ...]] = {split: (read_text(group[0]),) for split, group in by_split.items()}
    if "validation" not in splits and "train" in splits and not settings.whole:
        splits |= _cut(list(splits["train"]), settings.validation_fraction, 0.0)
    return _texts("text", source, "text folder", "its files are named after the splits", splits)


def _named(name: str, root: Path, source: str) -> Texts:
    """Tiny Shakespeare (A. Karpathy, char-rnn, 2015), nine tenths of it for training as nanoGPT does; WikiText-2
    (Merity et al. 2016, arXiv:1609.07843) as it is split."""
    found: dict[str, tuple[str, ...]] = {}
    for part in NAMED[name]:
        paths = [root / (part + ending) for ending in ENDINGS]
        there = [path for path in paths if path.is_file()]
        if not there:
            wanted = ", ".join(f"{file}.txt" for file in NAMED[name])
            raise OrchardError(f"{paths[0]} is missing; {name} consists of {wanted} (or the same packed, .txt.gz)")
        found[SPLITS.get(part, part)] = (read_text(there[0]),)
    splits = _cut(list(found["input"]), 0.1, 0.0) if "input" in found else found
    return _texts(name, source, "named set", f"'{name}' is the name of a set that Orchard knows", splits)


def _texts(name: str, source: str, format: str, reason: str, splits: Mapping[str, tuple[str, ...]]) -> Texts:
    mark = hashlib.sha256()
    for split, documents in splits.items():
        for document in documents:
            mark.update(f"{split} {len(document)}\n".encode() + document.encode())
    return Texts(name, source, format, reason, splits, mark.hexdigest())


def read_text(path: Path) -> str:
    """A UTF-8 file, packed by gzip or not. Raises OrchardError that names it if it is empty or of another encoding."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OrchardError(
            f"{path} is not UTF-8 (byte {error.start} is {error.object[error.start]:#04x}); convert it, for example "
            f"with iconv -f gb18030 -t utf-8"
        ) from None
    if not text.strip():
        raise OrchardError(f"{path} is empty; a language model needs text to learn from")
    return text


def _stem(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").removesuffix(".txt")


def _split(documents: list[str], settings: DataSettings) -> dict[str, tuple[str, ...]]:
    """Documents without splits: cut, or all of them the test."""
    if settings.whole:
        return {"test": tuple(documents)}
    return _cut(documents, settings.validation_fraction, settings.test_fraction)


def _cut(documents: list[str], validation: float, test: float) -> dict[str, tuple[str, ...]]:
    """The documents one after the other, cut by characters into train, validation and test."""
    total = sum(map(len, documents))
    places = {"train": int(total * (1 - validation - test)), "validation": int(total * (1 - test)), "test": total}
    splits: dict[str, tuple[str, ...]] = {}
    begin = 0
    for split, end in places.items():
        start, found = 0, []
        for document in documents:
            piece = document[max(begin - start, 0) : max(end - start, 0)]
            found += [piece] if piece else []
            start += len(document)
        if found or split != "test":
            splits[split] = tuple(found)
        begin = end
    return splits


def tokenize(texts: Texts, tokenizer: Tokenizer) -> TextData:
    """Every split as one row of tokens; of several documents each ends in the tokenizer's "end", if it has one."""
    splits = {}
    for name, documents in texts.splits.items():
        rows = [encode_array(tokenizer, document) for document in documents]
        if "end" in tokenizer.specials and len(documents) > 1:
            rows = [np.append(row, np.array(tokenizer.specials["end"], row.dtype)) for row in rows]
        tokens = np.concatenate(rows) if rows else encode_array(tokenizer, "")
        size = sum(len(document.encode()) for document in documents)
        words = sum(len(document.split()) + document.count("\n") for document in documents)
        splits[name] = TextSplit(f"{texts.name}/{name}", tokens, sum(map(len, documents)), size, words)
    mark = hashlib.sha256(f"{texts.fingerprint} {tokenizer.fingerprint}".encode()).hexdigest()
    return TextData(texts, tokenizer, splits, mark)


def pieces(text: str, size: int = 2**16) -> Iterator[str]:
    """A long text in parts of about `size` characters that can be encoded one by one.

    It is cut before a line end that follows a word, where no tokenizer of ours joins anything.
    """
    start = 0
    while start < len(text):
        end = start + size
        while end < len(text) and not (text[end] == "\n" and not text[end - 1].isspace()):
            end += 1
        yield text[start:end]
        start = end


def encode_array(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """The ids of a text of any length, (N,) uint16, or uint32 where the vocabulary needs it."""
    kind = np.uint16 if tokenizer.vocabulary <= 2**16 else np.uint32
    parts = [np.array(tokenizer.encode(piece), kind) for piece in pieces(text)]
    return np.concatenate(parts) if parts else np.empty(0, kind)
