"""Vectors of texts on the command line, in files of lines and in tables; each by itself, or all in one .npz file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from orchard.data.labelled_text.texts import read_texts
from orchard.errors import UsageError
from orchard.inference.artifacts import Artifact, EmbeddingArtifact
from orchard.inference.loading import load
from orchard.tasks.feature_extraction.pipeline import FeatureExtractor
from orchard.tasks.feature_extraction.settings import Options
from orchard.tasks.image_feature_extraction.answer import write_npz
from orchard.tasks.text_features import POOL


def answer(folder: Path, items: Sequence[str], options: Options, say: object) -> Iterator[Artifact]:
    if options.out is not None and options.out.suffix != ".npz":
        raise UsageError(f"--out {options.out}: features are written as .npz, with names and features inside")
    if not items and options.data is None:
        raise UsageError('give a text, as in orchard predict RUN "a wonderful film", or a table of texts with --data')
    extractor = FeatureExtractor(load(folder), options.pooling)
    answers = _answers(extractor, items, options.data)
    return answers if options.out is None else iter([write_npz(answers, options.out, "texts")])


def _answers(extractor: FeatureExtractor, items: Sequence[str], data: str | None) -> Iterator[EmbeddingArtifact]:
    texts = chain(items, (text for text, _ in read_texts(data, paired=False)) if data is not None else ())
    while chunk := list(islice(texts, POOL)):
        good = [text for text in chunk if text.strip()]
        vectors = extractor.predict(good)
        for text in chunk:
            if text.strip():
                yield EmbeddingArtifact(text, tuple(next(vectors).tolist()), what="text")
            else:
                yield EmbeddingArtifact(text, error="the text is empty", what="text")
