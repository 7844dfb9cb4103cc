"""Answers of a classifier: classes of images in files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from orchard.inference.artifacts import ClassesArtifact
from orchard.inference.image_files import find_images, read_ahead, read_array
from orchard.inference.session import Session, find_session, keep_session
from orchard.tasks.image_classification.settings import Options

FEW = 16  # images that a session without torch answers; more pay for loading it


def answer(folder: Path, items: Sequence[str], options: Options, say: object) -> Iterator[ClassesArtifact]:
    """Classes of every image in `items`: files, folders or patterns. Bad files are answered with what is wrong."""
    paths = find_images(items)
    session = find_session(folder) if len(paths) <= FEW and options.precision != "bf16" else None
    if session is not None:
        yield from _by_session(session, paths, options.top)
        return
    from orchard.inference.loading import load
    from orchard.tasks.image_classification.pipeline import ImageClassifier

    classifier = ImageClassifier(load(folder), precision=options.precision, say=say)  # type: ignore[arg-type]
    count = min(options.top, len(classifier.loaded.classes))
    for one in classifier.predict(paths, options.top):
        yield ClassesArtifact(one.picture, one.top, one.error, count)
    if len(paths) <= FEW:
        keep_session(folder)


def _by_session(session: Session, paths: Sequence[str], top: int) -> Iterator[ClassesArtifact]:
    """The same answers, one image at a time, without torch."""
    classes, preprocess = session.about.classes, session.preprocess
    count = min(top, len(classes))
    for ((path, reading),) in read_ahead(paths, 1, lambda path: read_array(path, preprocess)):
        pixels = reading.result()
        if isinstance(pixels, str):
            yield ClassesArtifact(path, error=pixels, count=count)
            continue
        row = session.probabilities(pixels[None])[0]
        best = np.argsort(-row, kind="stable")[:count]
        yield ClassesArtifact(path, tuple((classes[n], float(row[n])) for n in best), count=count)
