"""Text for language models: files, folders and named sets become one long row of tokens per split.

Reading and tokenizing are two steps, as a tokenizer may be learned from the training text that the first one gives.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchard.data.collect import SPLIT_WORDS, pack_digests
from orchard.data.contracts import DataSettings, Problem
from orchard.data.splits import hold_out_by_content
from orchard.data.text_files import ENDINGS as ENDINGS
from orchard.data.text_files import find_texts, is_table, is_text, read_documents
from orchard.data.tokenizers import Tokenizer
from orchard.errors import OrchardError, UsageError
from orchard.given import Given

SPLITS = SPLIT_WORDS
NAMED_ENDINGS = (".txt", ".txt.gz")
NAMED = {  # the files that each consists of
    "ptb": ("ptb.train", "ptb.valid", "ptb.test"),
    "shakespeare": ("input",),
    "wikitext-2": ("train", "valid", "test"),
}


@dataclass(frozen=True)
class Texts:
    """What was read: the documents of each split ("train" and "validation" always, "test" mostly)."""

    name: str  # the name by which recipes know it, "text" for a person's own
    source: str  # what the person wrote: a name or a path
    format: str  # "named set", "text file", "text folder"
    reason: str  # how the format was recognised, one sentence
    splits: Mapping[str, tuple[str, ...]]
    fingerprint: str  # sha256 over all of it
    problems: tuple[Problem, ...] = ()


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


def open_text(source: str | Given, settings: DataSettings) -> Texts:
    """Read what `source` is: `ptb:FOLDER`, `shakespeare:FOLDER`, `wikitext-2:FOLDER`, a file of text, a folder of them,
    or documents in a Python object (`orchard.data.text_objects`).

    Files of text are .txt and .md, files that fit `data.pattern`, and tables with a column of text (.jsonl, .csv,
    .tsv), packed by gzip or not. A folder whose files or folders are called train, valid (validation, val) and test is
    split so (without a validation file, the end of train is cut off). Of other texts each is cut by itself, so that a
    file more moves nothing: its end is the test, what comes before it validation; rows of a table are held out whole.
    Raises UsageError if there is nothing of that name, OrchardError that names the file if it is empty or no UTF-8.
    """
    if isinstance(source, Given):
        return _given(source, settings)
    name, _, folder = source.partition(":")
    if name in NAMED:
        root = folder or settings.root
        if root is None:
            raise UsageError(f"{name} needs a folder with its files: --data {name}:FOLDER, or --set data.root=FOLDER")
        return _named(name, Path(root).expanduser(), source)
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path, source, settings)
    if path.is_file() and is_text(path, settings):
        kind = "table of texts" if is_table(path) else "text file"
        return _texts("text", source, kind, "the ending of its name", _split([path], settings))
    if path.exists():
        raise UsageError(
            f"{source} is no text; expected a .txt or .md file, a .jsonl, .csv or .tsv table, or a folder of them "
            "(data.pattern=*.py reads others)"
        )
    near = difflib.get_close_matches(name.lower(), NAMED, n=2, cutoff=0.6)
    advice = f"did you mean {' or '.join(near)}?" if near else f"texts known by name: {', '.join(NAMED)}"
    raise UsageError(f"there is no file or folder '{source}'; {advice}")


def _given(given: Given, settings: DataSettings) -> Texts:
    """Documents of a Python object: of several, whole ones are held out, as of the rows of a table."""
    splits = dict(given.content)
    if "" in splits:
        documents = list(splits[""])
        cut = _cut(documents, settings.validation_fraction, settings.test_fraction)
        splits = {"test": splits[""]} if settings.whole else cut if len(documents) == 1 else _hold_out(
            documents, settings
        )  # fmt: skip
    elif settings.training and "train" not in splits:
        raise OrchardError(f"{given.source} has no training text, only {', '.join(splits)}")
    if "validation" not in splits and "train" in splits and not settings.whole:
        splits |= _cut(list(splits["train"]), settings.validation_fraction, 0.0)
    return _texts("text", given.source, "Python object", "it is a Python object with text in its records", splits)


def _folder(path: Path, source: str, settings: DataSettings) -> Texts:
    files, others = find_texts(path, settings)
    if not files:
        raise UsageError(
            f"{source} has no text; expected files ending in .txt or .md, or tables (.jsonl, .csv, .tsv); "
            "data.pattern=*.py reads others"
        )
    tops = {file.relative_to(path).parts[0].lower() for file in files if file.parent != path}
    by_folder = all(file.parent != path for file in files) and tops <= {*SPLITS}
    by_split: dict[str, list[Path]] = {}
    for file in files:
        word = file.relative_to(path).parts[0].lower() if by_folder else _stem(file)
        by_split.setdefault(SPLITS.get(word, ""), []).append(file)
    if "train" not in by_split and (settings.training or "" in by_split):
        reason = f"a folder with {len(files)} text files"
        return _texts("text", source, "text folder", reason, _split(files, settings), others)
    strays = by_split.pop("", []) + [file for group in by_split.values() for file in group[1:] if not by_folder]
    if strays:
        beside = by_split.get("train", next(iter(by_split.values())))[0].name
        raise OrchardError(
            f"{strays[0]} lies beside {beside} and is no further split; expected one file each for train, validation "
            f"and test, or none of these names"
        )
    splits = {
        split: tuple(document for file in group for document in read_documents(file, settings))
        for split, group in by_split.items()
    }
    if "validation" not in splits and "train" in splits and not settings.whole:
        splits |= _cut(list(splits["train"]), settings.validation_fraction, 0.0)
    reason = f"its {'folders' if by_folder else 'files'} are named after the splits"
    return _texts("text", source, "text folder", reason, splits, others)


def _named(name: str, root: Path, source: str) -> Texts:
    """Tiny Shakespeare (A. Karpathy, char-rnn, 2015), nine tenths of it for training as nanoGPT does; WikiText-2
    (Merity et al. 2016, arXiv:1609.07843) and the Penn Treebank of Mikolov et al. 2010 as they are split."""
    found: dict[str, tuple[str, ...]] = {}
    for part in NAMED[name]:
        paths = [root / (part + ending) for ending in NAMED_ENDINGS]
        there = [path for path in paths if path.is_file()]
        if not there:
            wanted = ", ".join(f"{file}.txt" for file in NAMED[name])
            raise OrchardError(f"{paths[0]} is missing; {name} consists of {wanted} (or the same packed, .txt.gz)")
        word = part.rpartition(".")[2]
        found[SPLITS.get(word, word)] = (read_text(there[0]),)
    splits = _cut(list(found["input"]), 0.1, 0.0) if "input" in found else found
    return _texts(name, source, "named set", f"'{name}' is the name of a set that Orchard knows", splits)


def _texts(
    name: str,
    source: str,
    format: str,
    reason: str,
    splits: Mapping[str, tuple[str, ...]],
    problems: Sequence[Problem] = (),
) -> Texts:
    mark = hashlib.sha256()
    for split, documents in splits.items():
        for document in documents:
            mark.update(f"{split} {len(document)}\n".encode() + document.encode())
    return Texts(name, source, format, reason, splits, mark.hexdigest(), tuple(problems))


def read_text(path: Path) -> str:
    """A UTF-8 file, packed by gzip or not. Raises OrchardError that names it if it is empty or of another encoding."""
    return read_documents(path, DataSettings())[0]


def _stem(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return name.rpartition(".")[0] or name


def _split(files: Sequence[Path], settings: DataSettings) -> dict[str, tuple[str, ...]]:
    """The documents of files without splits: held out, or all of them the test."""
    if settings.whole:
        return {"test": tuple(document for file in files for document in read_documents(file, settings))}
    found: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for file in files:
        documents = read_documents(file, settings)
        parts = _hold_out(documents, settings) if is_table(file) else _cut(
            documents, settings.validation_fraction, settings.test_fraction
        )  # fmt: skip
        for split, pieces_ in parts.items():
            found[split] += pieces_
    return {split: tuple(documents) for split, documents in found.items() if documents or split != "test"}


def _hold_out(documents: list[str], settings: DataSettings) -> dict[str, tuple[str, ...]]:
    """Whole documents, by what is in them."""
    digests = pack_digests(hashlib.sha256(document.encode()).digest() for document in documents)
    fractions, labels = (settings.test_fraction, settings.validation_fraction), np.zeros(len(documents), np.int64)
    test, validation = hold_out_by_content(digests, labels, fractions, settings.split_seed)
    held = {"validation": {*validation.tolist()}, "test": {*test.tolist()}}
    train = set(range(len(documents))) - held["validation"] - held["test"]
    return {name: tuple(documents[n] for n in sorted(places)) for name, places in {"train": train, **held}.items()}


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
