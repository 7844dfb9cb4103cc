"""Answers on the command line: how near each sentence is to the first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from orchard.data.labelled_text.texts import read_texts
from orchard.errors import UsageError
from orchard.inference.artifacts import Artifact, NumbersArtifact
from orchard.inference.loading import load
from orchard.tasks.sentence_similarity.pipeline import SentenceSimilarity
from orchard.tasks.sentence_similarity.settings import Options


def answer(folder: Path, items: Sequence[str], options: Options, say: object) -> Iterator[Artifact]:
    others = list(items[1:])
    if items and options.data is not None:
        others += [text for text, _ in read_texts(options.data, paired=False) if text.strip()]
    if not others:
        raise UsageError('give a sentence and others, as in orchard predict RUN "a dog runs" "an animal moves"')
    found = list(zip(others, SentenceSimilarity(load(folder))(items[0], others), strict=True))
    if options.top is not None:
        found = sorted(found, key=lambda pair: -pair[1])[: options.top]
    for sentence, cosine in found:
        yield NumbersArtifact(sentence, (("similarity", cosine),), "", ("similarity",), "sentence")
