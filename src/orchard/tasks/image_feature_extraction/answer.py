"""Answers: features of images in files or of a data set, each by itself, or all in one .npz file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.errors import OrchardError, UsageError
from orchard.files import atomic, disk_error
from orchard.inference.artifacts import Artifact, EmbeddingArtifact, Summary
from orchard.inference.image_files import find_images
from orchard.tasks.image_feature_extraction.settings import Options

if TYPE_CHECKING:
    import numpy as np


def answer(folder: Path, items: Sequence[str], options: Options, say: object) -> Iterator[Artifact]:
    """Features of every image in `items`: files, folders or patterns. Bad files are answered with what is wrong.

    With a split, of every record of one data set.
    """
    if options.out is not None and options.out.suffix != ".npz":
        raise UsageError(f"--out {options.out}: features are written as .npz, with names and features inside")
    if options.split is not None:
        return _of_data(folder, items, options.split, options.out)
    paths = find_images(items)
    from orchard.inference.loading import load
    from orchard.tasks.image_feature_extraction.pipeline import FeatureExtractor

    found = FeatureExtractor(load(folder)).predict(paths)
    answers = (
        EmbeddingArtifact(name, error=row) if isinstance(row, str) else EmbeddingArtifact(name, tuple(row.tolist()))
        for name, row in found
    )
    return answers if options.out is None else iter([write_npz(answers, options.out)])


def write_npz(answers: Iterator[EmbeddingArtifact], out: Path, records: str = "images") -> Summary:
    """`names` (N,) and `features` (N, D) float32 of all records that can be read, in one file.

    Raises OrchardError where some cannot, after the file is written; it has the others.
    """
    import numpy as np

    found = list(answers)
    good, bad = [one for one in found if not one.error], [one for one in found if one.error]
    if good:
        names, features = np.array([one.item for one in good]), np.array([one.values for one in good], np.float32)
        summary = _write({"names": names, "features": features}, out, records)
    if bad:
        count, left = len(good) + len(bad), f"; {out} has the features of the others" if good else ""
        raise OrchardError(f"{len(bad)} of {count} {records} cannot be read: {bad[0].item}: {bad[0].error}{left}")
    return summary


def _of_data(folder: Path, items: Sequence[str], split: str, out: Path | None) -> Iterator[Artifact]:
    """Features of the records of a data set. Its file has beside those their `splits` (N,) and, where images have
    classes, `labels` (N,) int64 and the names `classes` (K,) that these are places in."""
    import numpy as np

    from orchard.data.settings import PictureSource
    from orchard.data.unlabelled import open_with_classes
    from orchard.inference.loading import load
    from orchard.tasks import base
    from orchard.tasks.image_feature_extraction.features import encoder_for, split_features

    if len(items) != 1:
        raise UsageError(f"--split {split} asks for the records of one data set, got {len(items)} items")
    loaded = load(folder)
    data = open_with_classes(items[0], PictureSource(source=items[0]).for_evaluation(whole=False))
    chosen = data.splits if split == "all" else {split: base.pick_split(data.splits, split, items[0])}
    model, _ = base.on_device(encoder_for(loaded))
    found = {name: split_features(model, one, loaded.pictures, len(one)) for name, one in chosen.items() if len(one)}
    names = [chosen[name].key(index) for name, part in found.items() for index in part.indices.tolist()]
    features = np.concatenate([part.features for part in found.values()])
    if out is None:
        return (EmbeddingArtifact(name, tuple(row.tolist())) for name, row in zip(names, features, strict=True))
    table: dict[str, np.ndarray] = {
        "names": np.array(names), "features": features,
        "splits": np.repeat(list(found), [len(part.labels) for part in found.values()]),
    }  # fmt: skip
    if len(data.classes) > 1:
        labels = np.concatenate([part.labels for part in found.values()]).astype(np.int64)
        table |= {"labels": labels, "classes": np.array(data.classes)}
    return iter([_write(table, out)])


def _write(table: Mapping[str, np.ndarray], out: Path, records: str = "images") -> Summary:
    """The file, and what is said of it."""
    import numpy as np

    arrays: Any = table
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic(out) as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise disk_error(error, out, "make room, or name another file with --out") from None
    count, width = table["features"].shape
    values = {"out": str(out), records: count, "features": width}
    what = "names, labels and features" if "labels" in table else "names and features"
    return Summary(f"{out}: {what} of {count:,} {records}, {width:,} numbers each", values)
