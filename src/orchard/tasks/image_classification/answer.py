"""Answers of a classifier: classes of images in files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from orchard.inference.artifacts import ClassesArtifact
from orchard.inference.image_files import find_images
from orchard.tasks.image_classification.settings import Options


def answer(folder: Path, items: Sequence[str], options: Options, say: object) -> Iterator[ClassesArtifact]:
    """Classes of every image in `items`: files, folders or patterns. Bad files are answered with what is wrong."""
    paths = find_images(items)
    from orchard.inference.loading import load
    from orchard.tasks.image_classification.pipeline import ImageClassifier

    classifier = ImageClassifier(load(folder), precision=options.precision, say=say)  # type: ignore[arg-type]
    count = min(options.top, len(classifier.loaded.classes))
    for one in classifier.predict(paths, options.top):
        yield ClassesArtifact(one.picture, one.top, one.error, count)
