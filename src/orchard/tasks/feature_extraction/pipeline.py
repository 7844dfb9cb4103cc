"""A vector for each text."""

from __future__ import annotations

from pathlib import Path

from orchard.inference.loading import Loaded, load
from orchard.tasks.text_features import Pooling, TextFeatures


class FeatureExtractor(TextFeatures):
    """Vectors of texts by a trained model, (N, D) float32, as it makes them, not of length one.

    >>> FeatureExtractor("runs/bert_nano-text")(["a dog", "a cat"]).shape
    """

    def __init__(self, loaded: Loaded | str | Path, pooling: Pooling = "model"):
        super().__init__(loaded if isinstance(loaded, Loaded) else load(loaded), pooling)
