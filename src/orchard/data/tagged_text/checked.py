"""What `orchard data check` says of tagged text: entities by type and split, duplicates, what was repaired."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np

from orchard.data.checked import Checked, spread
from orchard.data.settings import TaggedTextSource
from orchard.data.tagged_text.contracts import TaggedText
from orchard.data.tagged_text.sources import open_tagged
from orchard.data.tagged_text.tags import PLAIN, entities_of

SHOWN = 8  # words of a sentence in a list


def check_tagged(source: str, settings: Any) -> Checked:
    """Sentences, words and entities of each type in every split; sentences that are there again; problems.

    Bad sentences are listed, not refused."""
    known = settings.model_dump(include=set(TaggedTextSource.model_fields) & set(type(settings).model_fields))
    data = open_tagged(source, TaggedTextSource.model_validate(known | {"bad_records": "skip"}))
    counts, types = {}, Counter[str]()
    for name, split in data.splits.items():
        found = _labels(data, name)
        types.update(found.keys())
        words = sum(len(sentence.words) for sentence in split.sentences)
        counts[name] = {"sentences": len(split), "words": words, **found}
    kinds = sorted(types)
    counts = {name: {key: row.get(key, 0) for key in ("sentences", "words", *kinds)} for name, row in counts.items()}
    lengths = np.array([len(sentence.words) for split in data.splits.values() for sentence in split.sentences])
    facts = {
        "tags are written in": f"{data.scheme}" + ("" if data.scheme == PLAIN else "; learned as BIO"),
        "words of a sentence (5 %, median, 95 %)": spread(lengths),
        "words are": "single characters" if data.characters else "words",
    }
    problems = tuple(f"{one.key}: {one.what}" for one in data.problems)
    return Checked(source, data.format, data.reason, counts, facts, problems, data.fingerprint, _again(data))


def _labels(data: TaggedText, split: str) -> Counter[str]:
    """How many entities there are of each type, or words of each plain tag."""
    if data.scheme == PLAIN:
        return Counter(tag for one in data.splits[split].sentences for tag in one.tags)
    return Counter(entity.type for one in data.splits[split].sentences for entity in entities_of(one.tags))


def _again(data: TaggedText) -> dict[str, tuple[str, ...]]:
    """Sentences that several splits have, and those with the same words and other tags."""
    places: dict[tuple[str, ...], list[tuple[str, str, tuple[str, ...]]]] = defaultdict(list)
    for name, split in data.splits.items():
        for one in split.sentences:
            places[one.words].append((name, one.key, one.tags))
    found: dict[str, list[str]] = defaultdict(list)
    for words, group in places.items():
        text = " ".join(words[:SHOWN]) + (" ..." if len(words) > SHOWN else "")
        said = f"{text} ({', '.join(key for _, key, _ in group[:4])})"
        if len({tags for *_, tags in group}) > 1:
            found["sentence with several taggings"].append(said)
        elif len({name for name, *_ in group}) > 1:
            found["sentence in several splits"].append(said)
    repeated = sum(len(group) - 1 for group in places.values())
    if repeated:
        found["note"].append(f"{repeated:,} sentences are there again, word for word")
    return {what: tuple(lines) for what, lines in found.items()}
