"""Metrics of entities: an entity is right if its words and its type are (conlleval of CoNLL-2000; seqeval)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchard.data.tagged_text.tags import Entity, entities_of, strict_entities

Tags = Sequence[Sequence[str]]  # of each sentence
ERRORS = ("wrong type", "wrong boundaries", "wrong type and boundaries", "missed", "not an entity")


@dataclass(frozen=True)
class Counted:
    """How many entities there are, how many were found, and how many of these are right."""

    true: int
    found: int
    right: int

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.true if self.true else 0.0

    @property
    def f1(self) -> float:
        total = self.true + self.found
        return 2 * self.right / total if total else 0.0


def count_entities(
    truth: Tags, found: Tags, read: Callable[[Sequence[str]], list[Entity]] = entities_of
) -> dict[str, Counted]:
    """Counts by type, and of all types together under "". `read` is `strict_entities` for seqeval's mode "strict"."""
    true, said, right = Counter[str](), Counter[str](), Counter[str]()
    for tags, answer in zip(truth, found, strict=True):
        a, b = set(read(tags)), set(read(answer))
        for counter, entities in ((true, a), (said, b), (right, a & b)):
            counter.update(one.type for one in entities)
    kinds = sorted(true | said)
    counts = {kind: Counted(true[kind], said[kind], right[kind]) for kind in kinds}
    return {"": Counted(true.total(), said.total(), right.total()), **counts}


def tag_metrics(truth: Tags, found: Tags, loss: float, *, plain: bool) -> dict[str, float]:
    """`loss` in nats per word, `accuracy` of words, and of entities `precision`, `recall`, `f1` and `strict_f1`, each
    from 0 to 1."""
    words = sum(map(len, truth))
    right = sum(a == b for one, other in zip(truth, found, strict=True) for a, b in zip(one, other, strict=True))
    metrics = {"loss": loss / words, "accuracy": right / words}
    if plain:
        return metrics
    every, strict = count_entities(truth, found)[""], count_entities(truth, found, strict_entities)[""]
    return {**metrics, "precision": every.precision, "recall": every.recall, "f1": every.f1, "strict_f1": strict.f1}


def type_rows(truth: Tags, found: Tags, *, plain: bool) -> list[dict[str, object]]:
    """A row for each type (of plain tags each tag), the most frequent first."""
    if plain:
        tags = sorted({tag for one in (*truth, *found) for tag in one})
        both = zip(truth, found, strict=True)
        pairs = Counter(pair for one, other in both for pair in zip(one, other, strict=True))
        true, said = Counter[str](), Counter[str]()
        for (a, b), count in pairs.items():
            true[a] += count
            said[b] += count
        counts = {tag: Counted(true[tag], said[tag], pairs[tag, tag]) for tag in tags}
    else:
        counts = {kind: one for kind, one in count_entities(truth, found).items() if kind}
    rows = sorted(counts.items(), key=lambda item: (-item[1].true, item[0]))
    return [
        {"type": kind, "precision": one.precision, "recall": one.recall, "f1": one.f1, "true": one.true,
         "found": one.found}
        for kind, one in rows
    ]  # fmt: skip


def match_entities(truth: Sequence[Entity], found: Sequence[Entity]) -> list[tuple[Entity | None, Entity | None]]:
    """Entities with what was found in their place: the one that is the same, or has the most words of them; and what
    was found where there is none, with None."""
    pairs: list[tuple[Entity | None, Entity | None]] = []
    for one in truth:
        shared = [(min(one.end, other.end) - max(one.begin, other.begin), other) for other in found]
        best = max(shared, key=lambda pair: (pair[1] == one, pair[0]), default=(0, None))
        pairs.append((one, best[1] if best[0] > 0 else None))
    pairs += [(None, other) for other in found if all(o.end <= other.begin or o.begin >= other.end for o in truth)]
    return pairs


def error_of(truth: Entity | None, found: Entity | None) -> str:
    """Which of `ERRORS` a pair is; "" for none."""
    if truth == found:
        return ""
    if truth is None:
        return "not an entity"
    if found is None:
        return "missed"
    if truth[1:] == found[1:]:
        return "wrong type"
    return "wrong boundaries" if truth.type == found.type else "wrong type and boundaries"
