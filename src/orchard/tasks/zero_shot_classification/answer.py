"""Answers on the command line: the classes that were named, most likely first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from orchard.errors import UsageError
from orchard.inference.artifacts import Artifact, ClassesArtifact
from orchard.inference.loading import load
from orchard.tasks.zero_shot_classification.pipeline import ZeroShotClassifier
from orchard.tasks.zero_shot_classification.settings import Options


def answer(folder: Path, items: Sequence[str], options: Options, say: object) -> Iterator[Artifact]:
    if not items:
        raise UsageError(
            'give a text, as in orchard predict RUN "the striker scored" --labels sports --labels politics'
        )
    classifier = ZeroShotClassifier(load(folder))
    for one in classifier.predict(items, options.labels, options.template, options.several):
        yield ClassesArtifact(one.text, one.top, one.error, len(options.labels), "text")
