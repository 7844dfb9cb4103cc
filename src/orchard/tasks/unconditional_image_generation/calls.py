"""How the networks of an adversarial pair are called on a batch, with or without classes and dictionaries."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from orchard.data.batches import ImageBatch
from orchard.nn.feature_quantizer import QuantizedFeatures


def labels_for(pair: Any, batch: ImageBatch) -> tuple[Tensor, ...]:
    """The labels of a batch, where the pair has classes: both of its networks are called with them too."""
    return (batch.labels,) if getattr(pair.config, "num_classes", 0) else ()


def noise_for(pair: Any, batch: ImageBatch) -> tuple[Tensor, ...]:
    """What a generator makes as many images of as there are in a batch."""
    return (pair.sample_noise(len(batch), device=batch.images.device), *labels_for(pair, batch))


def scores_for(pair: Any, batch: ImageBatch, heard: list[QuantizedFeatures] | None = None) -> Any:
    """The discriminator as a function of images, given the labels of a batch; scores are float32.

    With `heard`, for a pair that has dictionaries, these learn from the images, and what they say is put there.
    """
    labels, more = labels_for(pair, batch), {} if heard is None else {"heard": heard}
    return lambda images: pair.discriminator(images, *labels, **more).float()
