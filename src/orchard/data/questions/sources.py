"""Finding questions: files, folders with a file for each split, named sets, and Python objects."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orchard.data.collect import GO_ON, SPLIT_WORDS
from orchard.data.contracts import Problem
from orchard.data.objects import name_of, parts_of, require_records
from orchard.data.questions.contracts import Question, QuestionSet, QuestionSplit
from orchard.data.questions.reading import Read, question_of, read_questions
from orchard.data.settings import QuestionSource
from orchard.data.splits import hold_out_by_content
from orchard.data.tokenizer_files import CHINESE
from orchard.data.walk import is_junk
from orchard.errors import OrchardError, UsageError
from orchard.given import DATA, Given, source_of
from orchard.packed import DAMAGE, read_head

ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
NAMED = {"xquad": "xquad.{}.json", "cmrc2018": "cmrc2018.dev.json"}  # of the first there is a file for each language
_HEAD = 2**16  # bytes by which a file is recognised
_KEYS = re.compile(
    rb'"(paragraphs|context_text)"\s*:|^\s*\{(?=[^\n]*"question"\s*:)(?=[^\n]*"context"\s*:)[^\n]*"answers"\s*:'
)
_LISTED = 1000  # problems of a set that are listed one by one


def open_questions(source: str | Given, settings: QuestionSource) -> QuestionSet:
    """Open `xquad:FOLDER`, `cmrc2018:FOLDER`, a file or a folder of questions in SQuAD's form, or a Python object.

    Files may be packed (.gz). Those of a folder whose names say so are train, validation and test; what is not given is
    held out of the training questions, all questions of a text together. Raises UsageError where nothing of that kind
    is there, OrchardError for a question that is not right, unless bad records are skipped.
    """
    if isinstance(source, Given):
        return _settle("questions", source.source, "Python object", "records were handed in", source.content, settings)
    name, _, folder = source.partition(":")
    if name in NAMED:
        root = folder or settings.root
        if root is None:
            raise UsageError(f"{name} needs a folder with its files: --data {name}:FOLDER, or data.root=FOLDER")
        file = NAMED[name].format(settings.language_of or "en")
        paths = [Path(root).expanduser() / (file + ending) for ending in ("", ".gz")]
        there = next((path for path in paths if path.is_file()), None)
        if there is None:
            raise OrchardError(f"{paths[0]} is missing; {name} is that file (or the same packed, .gz)")
        found = {"train": read_questions(there)}
        return _settle(name, source, "named set", f"'{name}' is the name of a set that Orchard knows", found, settings)
    path = Path(source).expanduser()
    if path.is_file():
        paths_by_split = {"train": path}
    elif path.is_dir():
        paths_by_split = _by_split(path, source, settings)
    else:
        raise UsageError(f"there is no file or folder '{source}'; sets known by name: {', '.join(NAMED)}")
    read = {split: read_questions(file) for split, file in paths_by_split.items()}
    first = next(iter(paths_by_split.values()))
    form = "JSON lines" if ".jsonl" in first.name.lower() else "SQuAD"
    return _settle("questions", source, form, f"{first.name} has questions about texts", read, settings)


def take_questions(data: Any) -> Given:
    """The questions of each split of a Python object: records with question, context and answers, as Hugging Face's
    squad has them. Raises UsageError for what holds none."""
    if isinstance(data, Given):
        return data
    parts = parts_of(data)
    name = name_of(parts.get("train", next(iter(parts.values()))))
    found: dict[str, list[Read]] = {}
    for split, part in parts.items():
        require_records(part, name)
        first = part[0]
        if not isinstance(first, Mapping) or not {"question", "context", "answers"} <= first.keys():
            raise UsageError(f"{name}[0] is no record with question, context and answers")
        found[split or "train"] = [question_of(part[n], None, f"{name}[{n}]") for n in range(len(part))]
    digest = hashlib.sha256(repr(sorted(found.items())).encode(errors="surrogatepass"))
    return Given(source_of(DATA, name, digest.hexdigest()), found)


def recognise(source: str) -> bool:
    """Whether a path holds questions for certain: JSON whose beginning has paragraphs, or lines with questions."""
    path = Path(source).expanduser()
    try:
        files = [path] if path.is_file() else sorted(path.iterdir())[:8] if path.is_dir() else []
        files = [file for file in files if file.is_file() and file.name.lower().endswith(ENDINGS)]
        return any(_KEYS.search(read_head(file, _HEAD)) for file in files)
    except (OSError, *DAMAGE):
        return False


def _by_split(folder: Path, source: str, settings: QuestionSource) -> dict[str, Path]:
    """The files of a folder by the split that their names say; a single one is all there is."""
    files = [
        path for path in sorted(folder.iterdir()) if path.name.lower().endswith(ENDINGS) and not is_junk(path.name)
    ]
    if len(files) == 1:
        return {"train": files[0]}
    found: dict[str, Path] = {}
    for path in files:
        words = [SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", path.name.lower()) if word in SPLIT_WORDS]
        if words and words[0] in found:
            raise UsageError(f"{path.name} and {found[words[0]].name} of {source} are both {words[0]}; keep one")
        if words:
            found[words[0]] = path
    if not found or ("train" not in found and settings.training):
        names = ", ".join(path.name for path in files[:8]) or "none"
        raise UsageError(f"no file of {source} is named train, such as train-v1.1.json; its files: {names}")
    return {split: found[split] for split in ("train", "validation", "test") if split in found}


def _settle(
    name: str, source: str, form: str, reason: str, found: Mapping[str, Sequence[Read]], settings: QuestionSource
) -> QuestionSet:
    """Bad questions refused or left out, and splits where there are none."""
    problems: list[Problem] = []
    splits = {}
    for split, read in found.items():
        good = []
        for one in read:
            if one.question is None:
                if settings.bad_records == "refuse":
                    raise OrchardError(f"{one.key}: {one.fault}\nmend or remove it, {GO_ON}")
                problems.append(Problem(one.key, f"{one.fault}; left out"))
                continue
            good.append(one.question)
            if one.moved:
                problems.append(Problem(one.key, one.moved))
        if not good:
            raise OrchardError(f"{source} has no question that can be used in its {split} split")
        splits[split] = QuestionSplit(good)
    if settings.whole and list(splits) == ["train"]:
        splits = {"test": splits["train"]}
    if "validation" not in splits and "train" in splits and not settings.whole:
        splits = _hold_out(splits, settings)
    first = next(iter(splits.values())).questions
    texts = "".join(one.context for one in first[:200])
    language = "zh" if len(re.findall(CHINESE, texts)) > 0.3 * len(texts) else "en"
    mark = hashlib.sha256()
    for split, one_split in splits.items():
        mark.update(split.encode())
        for one_question in one_split.questions:
            mark.update(_said(one_question))
    return QuestionSet(name, source, form, reason, language, splits, mark.hexdigest(), tuple(problems[:_LISTED]))


def _said(one: Question) -> bytes:
    return repr((one.question, one.context, one.answers)).encode(errors="surrogatepass")


def _hold_out(splits: dict[str, QuestionSplit], settings: QuestionSource) -> dict[str, QuestionSplit]:
    """Validation, and a test where there is none, taken out of the training questions by their texts."""
    train = splits["train"]
    marks = np.array([question.of_text for question in train.questions], np.int64)
    fractions = [0.0 if "test" in splits else settings.test_fraction, settings.validation_fraction]
    test, validation = hold_out_by_content(marks, np.zeros(len(marks), np.int64), fractions, settings.split_seed)
    kept = np.setdiff1d(np.arange(len(marks)), np.concatenate([test, validation]))
    parts = {"train": kept, "validation": validation, **({"test": test} if len(test) else {})}
    made = {name: QuestionSplit([train.questions[n] for n in indices]) for name, indices in parts.items()}
    return made | {name: one for name, one in splits.items() if name not in ("train", "validation")}
