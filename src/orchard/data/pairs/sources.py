"""Finding text in pairs: files side by side, tables, and named sets."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from orchard.data.collect import GO_ON, SPLIT_WORDS
from orchard.data.contracts import Problem
from orchard.data.pairs.contracts import Pairs, TextPairs
from orchard.data.pairs.lines import Lines, index_lines, mark_of
from orchard.data.pairs.tables import find_layout, is_language, is_table, names_pairs
from orchard.data.settings import TextPairSource
from orchard.data.splits import AllBut, hold_out_by_content
from orchard.data.walk import is_junk
from orchard.errors import OrchardError, UsageError
from orchard.packed import DAMAGE

MULTI30K = {  # splits, and what their files are called
    "train": "train", "validation": "val", "test": "test_2016_flickr", "test_2017_flickr": "test_2017_flickr",
    "test_2017_mscoco": "test_2017_mscoco",
}  # fmt: skip
_PARALLEL = re.compile(r"(?P<stem>.+)\.(?!gz$)(?P<language>[a-z]{2,3}(?:[-_][A-Za-z]{2,4})?)(?:\.gz)?")
_NO_LANGUAGES = {"txt", "tsv", "csv", "gz", "md", "py", "zip", "tar", "xml", "log", "bz", "xz"}
FIRST = 8  # files of a folder that are looked into
_LISTED = 1000  # bad pairs of a file that are listed one by one
Languages = tuple[str, str]
Files = Mapping[str, Path]  # by language
T = TypeVar("T")


def open_pairs(source: str, settings: TextPairSource) -> TextPairs:
    """Open `multi30k:FOLDER`, a folder with files `train.de` and `train.en` side by side, or a table of two columns.

    Files may be packed (.gz). Files whose names say so are validation and test; what is not given is held out of the
    training pairs. A table is a .tsv, .csv or .jsonl file with one pair a line, or a folder with one for each split.
    Raises UsageError where nothing of that kind is there, OrchardError for files of unlike lengths, and for a pair
    of which one side is empty, unless bad records are skipped.
    """
    name, _, folder = source.partition(":")
    if name == "multi30k":
        root = folder or settings.root
        if root is None:
            raise UsageError("multi30k needs a folder with its files: --data multi30k:FOLDER, or data.root=FOLDER")
        return _multi30k(source, Path(root).expanduser(), settings)
    path = Path(source).expanduser()
    if path.is_file():
        if not is_table(path):
            raise UsageError(f"{source} is no table; expected a .tsv, .csv or .jsonl file, or a folder")
        return _Opening(source, settings).tables({"train": path})
    if not path.is_dir():
        raise UsageError(f"there is no file or folder '{source}'; sets known by name: multi30k")
    files = sorted(file for file in path.iterdir() if file.is_file() and not is_junk(file.name))
    if parallel := _parallel(files):
        by_split = _by_split(parallel, source, settings)
        languages = _pick_languages(source, sorted(next(iter(by_split.values()))), settings)
        return _Opening(source, settings).parallel(by_split, languages)
    tables = {file.name.removesuffix(".gz").rpartition(".")[0]: file for file in files if is_table(file)}
    if not tables:
        raise UsageError(
            f"{source} has no pairs; expected files such as train.de and train.en, or a table (.tsv, .csv, .jsonl)"
        )
    return _Opening(source, settings).tables(_by_split(tables, source, settings))


def recognise(source: str) -> bool:
    """Whether a path holds pairs of texts for certain: files of two languages side by side, or a table that names its
    two columns as such tables do. Two columns of anything may be something else."""
    path = Path(source).expanduser()
    try:
        if path.is_file():
            return is_table(path) and names_pairs(path)
        if not path.is_dir():
            return False
        files = sorted(file for file in path.iterdir() if file.is_file() and not is_junk(file.name))
        languages = (ending.split("_")[0].split("-")[0] for found in _parallel(files).values() for ending in found)
        if sum(map(is_language, set(languages))) > 1:
            return True
        return any(names_pairs(file) for file in files[:FIRST] if is_table(file))
    except (OSError, *DAMAGE, ValueError, RecursionError):
        return False


def _parallel(files: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Files by what their names have in common, then by language; of more than one language."""
    found: dict[str, dict[str, Path]] = {}
    for file in files:
        name = _PARALLEL.fullmatch(file.name)
        if name and name["language"] not in _NO_LANGUAGES:
            found.setdefault(name["stem"], {})[name["language"]] = file
    return {stem: languages for stem, languages in found.items() if len(languages) > 1}


def _by_split(by_stem: Mapping[str, T], source: str, settings: TextPairSource) -> dict[str, T]:
    """Files by the split that their stems name (`train`, `news.dev`); a single one is all there is."""
    if len(by_stem) == 1:
        return {"train": next(iter(by_stem.values()))}
    splits: dict[str, T] = {}
    for stem, files in by_stem.items():
        words = [SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", stem.lower()) if word in SPLIT_WORDS]
        if words and words[-1] in splits:
            raise UsageError(f"several files of {source} are {words[-1]}, '{stem}' among them; keep one of each split")
        if words:
            splits[words[-1]] = files
    if "train" not in splits and (settings.training or not splits):
        raise UsageError(f"no file of {source} is named train; it has {', '.join(by_stem)}")
    return {split: splits[split] for split in sorted(splits, key=lambda split: split != "train")}


def _pick_languages(source: str, found: Sequence[str], settings: TextPairSource) -> Languages:
    """The two languages that are asked for; of two in all, the first by the alphabet is read."""
    asked = [settings.source_language, settings.target_language]
    for language in asked:
        if language is not None and language not in found:
            raise UsageError(f"{source} has no training file in '{language}'; it has {', '.join(found)}")
    rest = [language for language in found if language not in asked]
    if len(rest) > asked.count(None) > 0:
        named = f"--set data.source_language={found[0]} --set data.target_language={found[1]}"
        raise UsageError(f"{source} has {', '.join(found)}; name two: {named}")
    first, second = (language or (rest.pop(0) if rest else None) for language in asked)
    if first is None or second is None or first == second:
        raise UsageError(f"{source}: expected one language to read and another to write, of {', '.join(found)}")
    return first, second


def _multi30k(source: str, root: Path, settings: TextPairSource) -> TextPairs:
    """Task 1 of Multi30k (Elliott et al. 2016, arXiv:1605.00459): captions in English, German and French."""
    languages = settings.source_language or "de", settings.target_language or "en"
    by_split: dict[str, dict[str, Path]] = {}
    for split, stem in MULTI30K.items():
        for language in languages:
            paths = [root / f"{stem}.{language}{ending}" for ending in ("", ".gz")]
            there = [path for path in paths if path.is_file()]
            if there:
                by_split.setdefault(split, {})[language] = there[0]
            elif split in ("train", "validation", "test"):
                raise OrchardError(f"{paths[0]} is missing; multi30k has train, val and test_2016_flickr, each in "
                                   "de, en and fr (or the same packed, .gz)")  # fmt: skip
    whole = {split: files for split, files in by_split.items() if len(files) == 2}
    opening = _Opening(source, settings)
    opening.name, opening.format = "multi30k", "named set"
    opening.reason = "'multi30k' is the name of a set that Orchard knows"
    return opening.parallel(whole, languages)


class _Opening:
    """A set while it is put together."""

    def __init__(self, source: str, settings: TextPairSource):
        self.source, self.settings = source, settings
        self.name, self.format, self.reason = "text-pairs", "", ""
        self.splits: dict[str, Pairs] = {}
        self.problems: list[Problem] = []

    def parallel(self, by_split: Mapping[str, Files], languages: Languages) -> TextPairs:
        for split, files in by_split.items():
            for language in languages:
                if language not in files:
                    path = next(iter(files.values()))
                    raise OrchardError(f"{path} has no counterpart in '{language}' beside it")
            left, right = (index_lines(files[language]) for language in languages)
            if len(left) != len(right):
                raise OrchardError(f"{left.path} has {len(left)} lines, {right.path} {len(right)}; line by line they "
                                   "have to correspond")  # fmt: skip
            blank = {int(row): "it is empty" for row in left.blank}
            bad = {int(row): f"its counterpart in {right.path.name} is empty" for row in right.blank}
            bad = {row: "" if row in blank and row in bad else what for row, what in (blank | bad).items()}
            self.splits[split] = Pairs(
                (left, right), None, self._records(left, bad), _together(left.marks, right.marks)
            )
        self.format = self.format or "parallel files"
        self.reason = self.reason or f"files in .{languages[0]} and .{languages[1]} lie side by side"
        return self._finish(languages)

    def tables(self, by_split: Mapping[str, Path]) -> TextPairs:
        languages = ("", "")
        for split, path in by_split.items():
            lines = index_lines(path)
            layout = find_layout(lines, self.settings)
            languages = languages if any(languages) else layout.names
            bad = {int(row): "" for row in lines.blank} | ({layout.first: ""} if layout.header else {})
            if layout.header and not layout.known:
                what = f"it is taken for the names of the columns, {' and '.join(layout.names)}, not for a pair"
                self.problems.append(Problem(lines.key(layout.first), what))
            marks = np.zeros((2, len(lines)), np.int64)
            for row in range(len(lines)):
                try:
                    if row not in bad:
                        texts = [text.strip() for text in layout.parse(lines[row])]
                        marks[:, row] = [mark_of(text) for text in texts]
                        if not all(texts):
                            bad[row] = "one of its texts is empty"
                except ValueError as error:
                    bad[row] = str(error)
            self.splits[split] = Pairs((lines,), layout.parse, self._records(lines, bad), _together(*marks))
        self.format, self.reason = "table", f"{next(iter(self.splits.values())).files[0].path.name} has one pair a line"
        return self._finish(languages)

    def _records(self, lines: Lines, bad: Mapping[int, str]) -> AllBut:
        """All lines but those in `bad`, which says what is wrong with each; nothing is where it is empty."""
        faults = sorted((row, what) for row, what in bad.items() if what)
        if faults and self.settings.bad_records == "refuse":
            row, what = faults[0]
            raise OrchardError(f"{lines.key(row)}: {what} ({len(faults)} lines are bad)\nmend or remove them, {GO_ON}")
        self.problems += [Problem(lines.key(row), f"{what}; left out") for row, what in faults[:_LISTED]]
        if len(bad) == len(lines):
            raise OrchardError(f"{lines.path} has no pair that can be read")
        return AllBut(len(lines), np.array(sorted(bad), np.int64))

    def _finish(self, languages: Languages) -> TextPairs:
        mark = hashlib.sha256(repr((languages, self.settings.bad_records)).encode())
        for split, pairs in self.splits.items():
            mark.update("\n".join([split, *(file.digest for file in pairs.files)]).encode())
        if self.settings.whole and list(self.splits) == ["train"]:
            self.splits = {"test": self.splits["train"]}
        if "validation" not in self.splits and "train" in self.splits and not self.settings.whole:
            mark.update(repr(self._hold_out()).encode())
        return TextPairs(self.name, self.source, self.format, self.reason, languages, self.splits, mark.hexdigest(),
                         tuple(self.problems))  # fmt: skip

    def _hold_out(self) -> tuple[object, ...]:
        """Take validation, and a test where there is none, out of the training pairs; returns what decided which."""
        s, train = self.settings, self.splits["train"]
        assert isinstance(train.rows, AllBut)
        fractions = [s.validation_fraction, 0.0 if "test" in self.splits else s.test_fraction]
        records = np.delete(np.arange(len(train.marks)), train.rows.without)
        held = hold_out_by_content(
            train.marks[records], np.zeros(len(records), np.int64), fractions[::-1], s.split_seed
        )  # fmt: skip
        left_out = [train.rows.without]  # the lines that were no records before
        for split, indices in zip(("test", "validation"), held, strict=True):
            if len(indices):
                self.splits[split] = replace(train, rows=records[indices])
                left_out.append(records[indices])
        kept = AllBut(len(train.marks), np.sort(np.concatenate(left_out)))
        self.splits["train"] = replace(train, rows=kept)
        return (*fractions, s.split_seed, "by content")


def _together(sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Marks of pairs out of those of their two texts: the same whichever of them is read."""
    return sources + targets
