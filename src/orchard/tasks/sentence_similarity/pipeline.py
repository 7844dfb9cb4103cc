"""How near sentences are to one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orchard.errors import UsageError
from orchard.inference.loading import Loaded, load
from orchard.tasks.sentence_similarity import TASK
from orchard.tasks.text_features import TextFeatures


class SentenceSimilarity:
    """Cosines between the vectors of sentences.

    >>> SentenceSimilarity("runs/bert_nano-sick")("a dog runs", ["an animal moves", "a man cooks"])

    Raises UsageError for a model of another task and OrchardError for one without a text tokenizer.
    """

    def __init__(self, loaded: Loaded | str | Path):
        loaded = loaded if isinstance(loaded, Loaded) else load(loaded)
        if loaded.task != TASK.name:
            raise UsageError(f"{loaded.folder} is for {loaded.task}; sentences are compared by a model for {TASK.name}")
        pooling: Any = loaded.facts.get("pooling", "mean")
        self.features = TextFeatures(loaded, pooling)

    def __call__(self, source: str, sentences: Sequence[str]) -> list[float]:
        """The cosine of each sentence with `source`, -1 to 1."""
        if not sentences:
            raise UsageError("give one or more sentences to compare with the first")
        vectors = self.features([source, *sentences])
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        found: list[float] = (vectors[1:] @ vectors[0]).tolist()
        return found
