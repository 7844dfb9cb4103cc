"""Features of images in files or in memory, by any model that has a head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orchard.errors import OrchardError
from orchard.inference.image_files import find_items, item_name, read_ahead, read_pixels
from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.image_feature_extraction.features import BATCH, encoder_for, extract, features_before_head


class FeatureExtractor:
    """A trained model that gives features of images: one that learned without labels, or a classifier.

    They are what its head is given, (D,) float32, as the network makes them, not of length one.
    """

    def __init__(self, loaded: Loaded):
        self.loaded = loaded
        self.model, self.device = base.on_device(encoder_for(loaded))
        with features_before_head(self.model):
            pass  # a model without a head is refused here

    def __call__(self, images: Any) -> np.ndarray:
        """(N, D) float32 of all images at once, which are as a classifier takes them: a path, a folder or a pattern,
        the bytes of a file, a PIL image, an array or a tensor, or a list of such.

        Raises UsageError for what is no image, OrchardError for a file that cannot be read.
        """
        found = []
        for name, features in self.predict(find_items(images)):
            if isinstance(features, str):
                raise OrchardError(f"{name}: {features}")
            found.append(features)
        return np.stack(found)

    def transform(self, image: Any) -> Tensor:
        """An image as the model takes it, float32 (C, H, W), as `Loaded.transform` says."""
        return self.loaded.transform(image)

    def predict(self, items: Sequence[Any]) -> Iterator[tuple[str, np.ndarray | str]]:
        """The name of each path or image in memory and its features, in order; or what is wrong with it."""
        number, pictures = 0, self.loaded.pictures
        for batch in read_ahead(items, BATCH, lambda item: read_pixels(item, pictures)):
            results = [(item_name(item, number + n), pixels.result()) for n, (item, pixels) in enumerate(batch)]
            number += len(batch)
            good = [pixels for _, pixels in results if isinstance(pixels, Tensor)]
            rows: Iterator[np.ndarray] = iter(())
            if good:
                images = pictures.normalise(torch.stack(good).to(self.device))
                rows = iter(extract(self.model, images).cpu().numpy())
            for name, pixels in results:
                yield name, pixels if isinstance(pixels, str) else next(rows)
