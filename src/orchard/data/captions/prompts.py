"""Texts to paint, many at a time: lines of `idx<TAB>text`, as EasyNLP takes them for prediction."""

from __future__ import annotations

from pathlib import Path

from orchard.data.captions.contracts import CaptionSettings
from orchard.data.captions.fields import row_fault, split_fields
from orchard.data.captions.layout import NAMES
from orchard.data.collect import GO_ON
from orchard.data.contracts import Problem
from orchard.errors import OrchardError
from orchard.packed import read_bytes

Prompt = tuple[str, str]  # idx, text


def read_prompts(path: Path, settings: CaptionSettings) -> tuple[list[Prompt], tuple[Problem, ...]]:
    """The prompts in a TSV, packed by gzip or not, in order, and the rows that were left out.

    The first line is a header if it names both columns (`settings.header` can say otherwise). Raises OrchardError for a
    bad row with its line, unless `bad_records` is "skip": a wrong number of fields, no UTF-8, an empty idx or text, an
    idx that was there before.
    """
    data = read_bytes(path)
    prompts: dict[str, str] = {}
    problems: list[Problem] = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        bare = line.rstrip(b"\r")
        if not bare or (number == 1 and _is_header(bare, settings.header)):
            continue
        idx, text, what = _prompt(bare)
        what = what or (f"idx '{idx}' was there before" if idx in prompts else "")
        if what and settings.bad_records == "refuse":
            raise OrchardError(f"{path}, line {number}: {what}\nmend or remove what is bad, {GO_ON}")
        if what:
            problems.append(Problem(f"{path}, line {number}", f"{what}; left out"))
        else:
            prompts[idx] = text
    if not prompts:
        raise OrchardError(f"{path} has no text to paint; expected lines of idx<TAB>text")
    return list(prompts.items()), tuple(problems)


def _is_header(line: bytes, setting: str) -> bool:
    names = [field.decode("utf-8", "replace").strip().lower() for field in line.split(b"\t")]
    known = len(names) == 2 and names[0] in NAMES["idx"] and names[1] in NAMES["text"]
    return setting == "yes" or (setting == "auto" and known)


def _prompt(line: bytes) -> tuple[str, str, str]:
    """idx, text, and what is wrong."""
    fields = split_fields(line, 2)
    if len(fields) != 2:
        return "", "", f"{len(fields)} fields, where there should be 2, idx<TAB>text"
    try:
        idx, text = (field.decode().strip() for field in fields)
    except UnicodeDecodeError:
        return "", "", "this is not UTF-8"
    what = "the idx is empty" if not idx else "the text is empty" if not text else row_fault(idx, text)
    return idx, text, what
