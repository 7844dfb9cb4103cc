"""The report of a model that tags words: which entities it finds, and what it takes for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchard.data.tagged_text import Sentence, TaggedText
from orchard.data.tagged_text.tags import PLAIN, Entity, entities_of
from orchard.files import read_json
from orchard.report.confusion import confusion_cells
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.token_classification.metrics import ERRORS, error_of, match_entities, type_rows
from orchard.training.run import RunFolder

ANSWERS = "tags.json"  # in the run's folder "evaluation": what was said of the sentences of the report's split
WORST = 20  # sentences that are shown
LISTED = 30  # words whose tags may be wrong in the data
SURE = 0.9  # the probability of a tag from which on a word with another is listed
NONE = "none"  # what confusion calls no entity


@dataclass(frozen=True)
class Piece:
    """A run of words; of an entity with its type, and whether it is right."""

    text: str
    type: str = ""
    right: bool = True


@dataclass(frozen=True)
class Example:
    key: str
    truth: list[Piece]
    found: list[Piece]


def write_tag_report(run: RunFolder, data: TaggedText, report_split: str) -> Path:
    """Write report.html about a run whose other files are written, and return its path."""
    figures, facts = run.metrics().reported, run.facts().data.model_dump()
    answers = read_json(run / "evaluation" / ANSWERS)
    sentences, plain = data.splits[report_split].sentences, data.scheme == PLAIN
    found = [tuple(data.classes[tag] for tag in one["tags"]) for one in answers]
    truth = [sentence.tags for sentence in sentences]
    space = "" if data.characters else " "
    main = [Tile("Accuracy", f"{figures['accuracy']:.2%}", "words with the right tag")]
    if not plain:
        note = (
            f"precision {figures['precision']:.1%}, recall {figures['recall']:.1%}; strictly {figures['strict_f1']:.1%}"
        )
        main.insert(0, Tile(f"{report_split.capitalize()} F1", f"{figures['f1']:.1%}", note))
    tiles = [
        *main,
        Tile("Vocabulary", f"{facts['tokenizer']['vocabulary']:,}", "tokens"),
        Tile("Sentences", f"{facts['counts']['train']:,}", f"to learn from, tags written in {data.scheme}"),
    ]
    curves = [Curve("Accuracy", "accuracy", "words", percent=True), Curve("Loss", "loss", "nats a word", falling=True)]
    pairs = [pair for a, b in zip(truth, found, strict=True) for pair in _matched(a, b, plain)]
    kinds = sorted({one.type for pair in pairs for one in pair if one}) + ([] if plain else [NONE])
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=curves if plain else [Curve("F1", "f1", "entities", percent=True), *curves],
        more_facts={"scheme of the tags": data.scheme},
        report_split=report_split,
        figures=figures,
        plain=plain,
        rows=type_rows(truth, found, plain=plain),
        errors=_errors(pairs),
        matrix=confusion_cells(_confusion(pairs, kinds), kinds),
        examples=worst(sentences, found, answers, space, plain),
        doubtful=doubtful(sentences, found, answers, space),
    )


def _matched(truth: Sequence[str], found: Sequence[str], plain: bool) -> list[tuple[Entity | None, Entity | None]]:
    if plain:
        pairs = enumerate(zip(truth, found, strict=True))
        return [(Entity(a, n, n + 1), Entity(b, n, n + 1)) for n, (a, b) in pairs]
    return match_entities(entities_of(truth), entities_of(found))


def _errors(pairs: Sequence[tuple[Entity | None, Entity | None]]) -> list[tuple[str, int, float]]:
    """How many errors there are of each kind, and their share of all."""
    counts = Counter(error for pair in pairs if (error := error_of(*pair)))
    return [(error, counts[error], counts[error] / counts.total()) for error in ERRORS if counts[error]]


def _confusion(pairs: Sequence[tuple[Entity | None, Entity | None]], kinds: Sequence[str]) -> np.ndarray:
    """Types of entities (rows) and of what was found in their place (columns)."""
    matrix = np.zeros((len(kinds), len(kinds)), np.int64)
    for truth, found in pairs:
        matrix[kinds.index(truth.type if truth else NONE), kinds.index(found.type if found else NONE)] += 1
    return matrix


def worst(
    sentences: Sequence[Sentence], found: Sequence[Sequence[str]], answers: Sequence[Any], space: str, plain: bool
) -> list[Example]:
    """The sentences with mistakes that the model holds for least likely, as they are and as it tags them."""
    wrong = [n for n, one in enumerate(sentences) if tuple(found[n]) != one.tags]
    chosen = sorted(wrong, key=lambda n: -answers[n]["loss"])[:WORST]
    examples = []
    for n in chosen:
        words, tags = sentences[n].words, sentences[n].tags
        a, b = (_entities(one, plain) for one in (tags, found[n]))
        examples.append(Example(sentences[n].key, _pieces(words, a, b, space), _pieces(words, b, a, space)))
    return examples


def _entities(tags: Sequence[str], plain: bool) -> list[Entity]:
    return [Entity(tag, n, n + 1) for n, tag in enumerate(tags)] if plain else entities_of(tags)


def _pieces(words: Sequence[str], entities: Sequence[Entity], others: Sequence[Entity], space: str) -> list[Piece]:
    """A sentence in pieces; an entity that the others have too is right."""
    found, at = [], 0
    for one in entities:
        found += [Piece(space.join(words[at : one.begin]))] if at < one.begin else []
        found.append(Piece(space.join(words[one.begin : one.end]), one.type, one in others))
        at = one.end
    return found + ([Piece(space.join(words[at:]))] if at < len(words) else [])


def doubtful(
    sentences: Sequence[Sentence], found: Sequence[Sequence[str]], answers: Sequence[Any], space: str
) -> list[dict[str, Any]]:
    """Words whose tag in the data may be wrong: those of which the model is surest that it is another."""
    rows = []
    for sentence, tags, one in zip(sentences, found, answers, strict=True):
        for n, (tag, said, score) in enumerate(zip(sentence.tags, tags, one["scores"], strict=True)):
            if tag != said and score >= SURE:
                before, after = space.join(sentence.words[max(n - 4, 0) : n]), space.join(sentence.words[n + 1 : n + 5])
                rows.append({"key": sentence.key, "before": before, "word": sentence.words[n], "after": after,
                             "tag": tag, "said": said, "score": score})  # fmt: skip
    return sorted(rows, key=lambda row: -row["score"])[:LISTED]
