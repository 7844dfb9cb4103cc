"""Answers of a classifier of texts: classes, or numbers, of texts on the command line, in lines and in tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from orchard.data.labelled_text.texts import read_texts
from orchard.errors import UsageError
from orchard.inference.artifacts import Artifact, ClassesArtifact, LabelsArtifact, NumbersArtifact
from orchard.inference.loading import load
from orchard.inference.outputs import Named, Numbers, SeveralClasses
from orchard.tasks.text_classification.pipeline import POOL, Question, TextClassifier
from orchard.tasks.text_classification.settings import Options


def answer(folder: Path, items: Sequence[str], options: Options, say: Callable[[str], None]) -> Iterator[Artifact]:
    """What each text is, in order. A text that cannot be answered says why; the others are answered all the same."""
    if not items and options.data is None:
        raise UsageError('give a text, as in orchard predict RUN "a wonderful film", or a table of texts with --data')
    classifier = TextClassifier(load(folder))
    asked: list[Question] = [(item, options.pair) for item in items]
    questions = chain(asked, read_texts(options.data, classifier.paired) if options.data is not None else ())
    while chunk := list(islice(questions, POOL)):
        for one in classifier.predict(chunk, options.top):
            yield _artifact(classifier, one.text, one.top, one.error, options.top)


def _artifact(classifier: TextClassifier, text: str, named: Named, error: str, top: int) -> Artifact:
    outputs = classifier.loaded.outputs
    if isinstance(outputs, SeveralClasses):
        return LabelsArtifact(text, named, error, "text")
    if isinstance(outputs, Numbers):
        return NumbersArtifact(text, named, error, outputs.names, "text")
    return ClassesArtifact(text, named, error, min(top, len(outputs.names)), "text")
