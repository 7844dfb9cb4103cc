"""Answers: features of images in files, each by itself, or all in one .npz file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from orchard.errors import OrchardError, UsageError
from orchard.files import atomic, disk_error
from orchard.inference.artifacts import Artifact, EmbeddingArtifact, Summary
from orchard.inference.image_files import find_images
from orchard.tasks.image_feature_extraction.settings import Options


def answer(folder: Path, items: Sequence[str], options: Options, say: object) -> Iterator[Artifact]:
    """Features of every image in `items`: files, folders or patterns. Bad files are answered with what is wrong."""
    if options.out is not None and options.out.suffix != ".npz":
        raise UsageError(f"--out {options.out}: features are written as .npz, with names and features inside")
    paths = find_images(items)
    from orchard.inference.loading import load
    from orchard.tasks.image_feature_extraction.pipeline import FeatureExtractor

    found = FeatureExtractor(load(folder)).predict(paths)
    answers = (
        EmbeddingArtifact(name, error=row) if isinstance(row, str) else EmbeddingArtifact(name, tuple(row.tolist()))
        for name, row in found
    )
    return answers if options.out is None else iter([write_npz(answers, options.out)])


def write_npz(answers: Iterator[EmbeddingArtifact], out: Path) -> Summary:
    """`names` (N,) and `features` (N, D) float32 of all images that can be read, in one file.

    Raises OrchardError where some cannot, after the file is written; it has the others.
    """
    import numpy as np

    found = list(answers)
    good, bad = [one for one in found if not one.error], [one for one in found if one.error]
    if good:
        names, features = [one.item for one in good], np.array([one.values for one in good], np.float32)
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with atomic(out) as file:
                np.savez(file, names=np.array(names), features=features)
        except OSError as error:
            raise disk_error(error, out, "make room, or name another file with --out") from None
    if bad:
        count, left = len(good) + len(bad), f"; {out} has the features of the others" if good else ""
        raise OrchardError(f"{len(bad)} of {count} images cannot be read: {bad[0].item}: {bad[0].error}{left}")
    width = features.shape[1]
    values = {"out": str(out), "images": len(good), "features": width}
    return Summary(f"{out}: names and features of {len(good):,} images, {width:,} numbers each", values)
