"""Finding tagged text: files, folders with a file for each split, named sets, and Python objects."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from orchard.data.collect import GO_ON, SPLIT_WORDS
from orchard.data.contracts import Problem
from orchard.data.settings import TaggedTextSource
from orchard.data.splits import hold_out_by_content
from orchard.data.tagged_text.contracts import Sentence, TaggedSplit, TaggedText, classes_of
from orchard.data.tagged_text.reading import Raw, parse_tagged, read_tagged
from orchard.data.tagged_text.tags import OUTSIDE, PLAIN, as_bio, entities_of, faults_of, find_scheme, is_chunk_tag
from orchard.data.walk import is_junk
from orchard.errors import OrchardError, UsageError
from orchard.given import Given
from orchard.packed import DAMAGE, read_head

ENDINGS = (".conll", ".conll2003", ".bio", ".iob", ".iob2", ".bmes", ".bioes", ".bilou", ".txt", ".tsv", ".jsonl")
NAMED = {"wnut17": "wnut17.{}.conll", "resume-ner": "resume_ner.{}.bmes"}  # each for train, dev and test
SPLITS = {**SPLIT_WORDS, "testa": "validation", "testb": "test"}  # as CoNLL-2003 calls its files
_OTHERS = (".md", ".py", ".html", ".pdf", ".zip", ".csv", ".json", ".xml")
_HEAD = 2**16  # bytes by which a file is recognised
_LISTED = 1000  # problems of a set that are listed one by one


def open_tagged(source: str | Given, settings: TaggedTextSource) -> TaggedText:
    """Open `wnut17:FOLDER`, `resume-ner:FOLDER`, a file or a folder of words with tags, or a Python object.

    A file has a word and its tag a line (CoNLL; .conll, .bio, .bmes, .txt, .tsv, ...), or JSON lines with "tokens" and
    "ner_tags" or "tags"; any may be packed (.gz). Files of a folder whose names say so are train, validation and test;
    what is not given is held out of the training sentences. Raises UsageError where nothing of that kind is there,
    OrchardError for a sentence that is not right, unless bad records are skipped.
    """
    if isinstance(source, Given):
        return _Opening(source.source, "Python object", "lists of words and tags were handed in", settings).settle(
            source.content
        )
    name, _, folder = source.partition(":")
    if name in NAMED:
        root = folder or settings.root
        if root is None:
            raise UsageError(f"{name} needs a folder with its files: --data {name}:FOLDER, or data.root=FOLDER")
        paths = _named(name, Path(root).expanduser())
        opening = _Opening(source, "named set", f"'{name}' is the name of a set that Orchard knows", settings)
        opening.name = name
        return opening.settle(opening.read(paths))
    path = Path(source).expanduser()
    if path.is_file():
        paths = {"train": path}
    elif path.is_dir():
        paths = _by_split(path, source, settings)
    else:
        raise UsageError(f"there is no file or folder '{source}'; sets known by name: {', '.join(NAMED)}")
    first = next(iter(paths.values()))
    tables = _stem(first.name).endswith(".jsonl")
    reason = f"{first.name} has a list of words and one of tags a line" if tables else f"{first.name} has columns"
    opening = _Opening(source, "JSON lines" if tables else "columns", reason, settings)
    return opening.settle(opening.read(paths))


def recognise(source: str) -> bool:
    """Whether a path holds tagged text for certain: columns of which the last are tags with types, or JSON lines with
    words and tags."""
    path = Path(source).expanduser()
    try:
        if path.is_file():
            return _stem(path.name).endswith(ENDINGS) and _is_tagged(path)
        if not path.is_dir():
            return False
        files = [file for file in sorted(path.iterdir()) if file.is_file() and _stem(file.name).endswith(ENDINGS)]
        return any(_is_tagged(file) for file in files[:8])
    except (OSError, *DAMAGE, OrchardError):
        return False


def _is_tagged(path: Path) -> bool:
    """Told by the beginning of a file, without its last line, which may not be whole."""
    head = read_head(path, _HEAD)
    found = parse_tagged(path, head if len(head) < _HEAD else head[: head.rfind(b"\n") + 1], None)
    tags = {tag for one in found if not one.fault for tag in one.tags}
    return all(map(is_chunk_tag, tags)) and bool(tags - {OUTSIDE})


def _stem(name: str) -> str:
    return name.lower().removesuffix(".gz")


def _named(name: str, root: Path) -> dict[str, Path]:
    found, names = {}, {split: NAMED[name].format(split) for split in ("train", "dev", "test")}
    for split, file in names.items():
        paths = [root / (file + ending) for ending in ("", ".gz")]
        there = next((path for path in paths if path.is_file()), None)
        if there is None:
            raise OrchardError(
                f"{paths[0]} is missing; {name} has {', '.join(names.values())} (or the same packed, .gz)"
            )
        found[SPLITS[split]] = there
    return found


def _by_split(folder: Path, source: str, settings: TaggedTextSource) -> dict[str, Path]:
    """The files of a folder by the split that their names say; a single one is all there is."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not is_junk(path.name)]
    files = [path for path in files if not _stem(path.name).endswith(_OTHERS) and _stem(path.name) != "readme.txt"]
    if len(files) == 1:
        return {"train": files[0]}
    found: dict[str, Path] = {}
    for path in files:
        words = [SPLITS[word] for word in re.split(r"[^a-z]+", path.name.lower()) if word in SPLITS]
        if words and words[-1] in found:
            raise UsageError(f"{path.name} and {found[words[-1]].name} of {source} are both {words[-1]}; keep one")
        if words:
            found[words[-1]] = path
    if not found or ("train" not in found and settings.training):
        names = ", ".join(path.name for path in files[:8]) or "none"
        raise UsageError(f"no file of {source} is named train, such as train.conll; its files: {names}")
    return {split: found[split] for split in ("train", "validation", "test") if split in found}


class _Opening:
    """A set while it is put together."""

    def __init__(self, source: str, format: str, reason: str, settings: TaggedTextSource):
        self.source, self.format, self.reason, self.settings = source, format, reason, settings
        self.name = "tagged-text"
        self.problems: list[Problem] = []

    def read(self, paths: Mapping[str, Path]) -> dict[str, list[Raw]]:
        return {split: read_tagged(path, self.settings.tag_column) for split, path in paths.items()}

    def settle(self, found: Mapping[str, Sequence[Raw]]) -> TaggedText:
        """Bad sentences refused or left out, tags as BIO, and splits where there are none."""
        good = {split: [one for one in raws if self._is_good(one)] for split, raws in found.items()}
        learned = good.get("train") or next(iter(good.values()))
        scheme = find_scheme(one.tags for one in learned)
        sentences = {split: self._normalised(raws, scheme) for split, raws in good.items()}
        classes = classes_of(sentences.get("train") or next(iter(sentences.values())), scheme)
        if len(classes) < 2:
            raise OrchardError(f"{self.source}: every word has the tag {classes[0]}; expected tags such as B-NAME")
        splits = {split: TaggedSplit(self._known(found, classes)) for split, found in sentences.items()}
        empty = next((split for split, one in splits.items() if not len(one)), None)
        if empty:
            raise OrchardError(f"{self.source} has no sentence that can be used in its {empty} split")
        if self.settings.whole and list(splits) == ["train"]:
            splits = {"test": splits["train"]}
        if "validation" not in splits and "train" in splits and not self.settings.whole:
            splits = self._hold_out(splits)
        mark = hashlib.sha256(repr((scheme, classes)).encode(errors="surrogatepass"))
        for split, one in splits.items():
            mark.update(split.encode())
            for sentence in one.sentences:
                mark.update(repr((sentence.words, sentence.tags)).encode(errors="surrogatepass"))
        return TaggedText(self.name, self.source, self.format, self.reason, scheme, classes, splits, mark.hexdigest(),
                          tuple(self.problems[:_LISTED]))  # fmt: skip

    def _is_good(self, one: Raw) -> bool:
        if one.fault:
            self._bad(*one.fault)
        return one.fault is None

    def _bad(self, key: str, what: str) -> None:
        if self.settings.bad_records == "refuse":
            raise OrchardError(f"{key}: {what}\nmend or remove the sentence, {GO_ON}")
        self.problems.append(Problem(key, f"{what}; its sentence is left out"))

    def _normalised(self, raws: Sequence[Raw], scheme: str) -> list[Sentence]:
        found = []
        for one in raws:
            tags = tuple(one.tags)
            if scheme != PLAIN:
                odd = next((place for place, tag in enumerate(tags) if not is_chunk_tag(tag)), None)
                if odd is not None:
                    self._bad(
                        one.keys[odd], f"its tag '{tags[odd][:40]}' is neither O nor a prefix with a type, as B-NAME"
                    )
                    continue
                for place, what in faults_of(tags, scheme):
                    self.problems.append(
                        Problem(one.keys[place], f"{what}, which {scheme} has not; read as seqeval does")
                    )
                tags = as_bio(entities_of(tags), len(tags))
            found.append(Sentence(tuple(one.words), tags, one.keys[0]))
        return found

    def _known(self, sentences: Sequence[Sentence], classes: Sequence[str]) -> list[Sentence]:
        """Sentences whose tags training has."""
        found = []
        for one in sentences:
            strange = next((tag for tag in one.tags if tag not in classes), None)
            if strange:
                self._bad(one.key, f"its sentence has the tag {strange}, which no training sentence has")
            else:
                found.append(one)
        return found

    def _hold_out(self, splits: dict[str, TaggedSplit]) -> dict[str, TaggedSplit]:
        """Validation, and a test where there is none, taken out of the training sentences by their content."""
        s, train = self.settings, splits["train"]
        fractions = [0.0 if "test" in splits else s.test_fraction, s.validation_fraction]
        marks = train.marks()
        test, validation = hold_out_by_content(marks, np.zeros(len(marks), np.int64), fractions, s.split_seed)
        kept = np.setdiff1d(np.arange(len(marks)), np.concatenate([test, validation]))
        parts = {"train": kept, "validation": validation, **({"test": test} if len(test) else {})}
        made = {name: TaggedSplit([train.sentences[n] for n in indices]) for name, indices in parts.items()}
        return made | {name: one for name, one in splits.items() if name not in ("train", "validation")}
