"""Answers of a classifier: classes, or numbers, of images in files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from orchard.inference.artifacts import Artifact, ClassesArtifact, LabelsArtifact, NumbersArtifact
from orchard.inference.image_files import find_images, read_ahead, read_array
from orchard.inference.outputs import Named, Numbers, OneClass, Outputs, SeveralClasses
from orchard.inference.session import Session, find_session, keep_session
from orchard.tasks.image_classification.settings import Options

FEW = 16  # images that a session without torch answers; more pay for loading it


def answer(
    folder: Path, items: Sequence[str], options: Options, say: Callable[[str], None], others: Sequence[Path] = ()
) -> Iterator[Artifact]:
    """What every image in `items` shows: files, folders or patterns. Bad files are answered with what is wrong.

    The models in `others` answer together with that of `folder`.
    """
    paths = find_images(items)
    alone = not others and len(paths) <= FEW and options.tta == "none"
    session = find_session(folder) if alone and options.precision != "bf16" else None
    if session is not None:
        yield from _by_session(session, paths, options.top)
        return
    from orchard.inference.loading import load
    from orchard.tasks.image_classification.pipeline import ImageClassifier
    from orchard.tasks.image_classification.views import mirrored

    loaded, *more = (load(one) for one in (folder, *others))
    classifier = ImageClassifier(loaded, others=more, precision=options.precision, tta=options.tta, say=say)
    if warning := mirrored(options.tta, loaded.classes):
        say(warning)
    artifact = _artifact(classifier.outputs, options.top)
    for one in classifier.predict(paths, options.top):
        yield artifact(one.picture, one.top, one.error)
    if alone:
        keep_session(folder)


def _by_session(session: Session, paths: Sequence[str], top: int) -> Iterator[Artifact]:
    """The same answers, one image at a time, without torch."""
    artifact, preprocess = _artifact(session.outputs, top), session.preprocess
    for ((path, reading),) in read_ahead(paths, 1, lambda path: read_array(path, preprocess)):
        pixels = reading.result()
        if isinstance(pixels, str):
            yield artifact(path, (), pixels)
        else:
            yield artifact(path, session.outputs.named(session.answers(pixels[None])[0].tolist(), top), "")


def _artifact(outputs: Outputs, top: int) -> Callable[[str, Named, str], Artifact]:
    """What makes an answer of a path, of what is said of it, and of what is wrong with it."""
    count = min(top, len(outputs.names))
    makers: dict[type[Outputs], Callable[[str, Named, str], Artifact]] = {
        OneClass: lambda path, named, error: ClassesArtifact(path, named, error, count),
        SeveralClasses: LabelsArtifact,
        Numbers: lambda path, named, error: NumbersArtifact(path, named, error, outputs.names),
    }
    return makers[type(outputs)]
