"""Features of images: what a model's head is given. And what they are worth: k-NN and a linear probe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.contracts import ImageSplit, Preprocess
from orchard.data.loader import Loader
from orchard.errors import UsageError
from orchard.tasks.image_feature_extraction.settings import EvaluationSettings

BATCH = 64


@contextmanager
def features_before_head(model: nn.Module) -> Iterator[list[Tensor]]:
    """While it lasts, every forward pass adds what the head is given, (B, D); of a map its mean, (B, C).

    So the features of a classifier and of a model with a projection head are one thing, whatever the network. Raises
    UsageError for a model without a head.
    """
    name = getattr(model, "head_name", None)
    if name is None:
        raise UsageError(f"{type(model).__name__} has no head, before which features would be taken")
    found: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        given = inputs[0].detach().float()
        found.append(given.mean((2, 3)) if given.ndim == 4 else given)

    handle = model.get_submodule(name).register_forward_pre_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


@torch.no_grad()
def extract(model: nn.Module, images: Tensor) -> Tensor:
    """Features (B, D) float32 of images (B, C, H, W) as the model takes them, by a model in evaluation mode."""
    with features_before_head(model) as found:
        model(images)
    return found[-1]


@dataclass(frozen=True)
class SplitFeatures:
    """Some images of a split: features (N, D) float32, labels (N,) and indices (N,) int64."""

    features: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


def split_features(model: nn.Module, split: ImageSplit, preprocess: Preprocess, most: int) -> SplitFeatures:
    """Features of up to `most` images of a split, at even distances."""
    chosen = np.unique(np.linspace(0, len(split) - 1, min(most, len(split))).round().astype(np.int64))
    loader = Loader(split, preprocess, None, batch_size=BATCH, seed=0, workers=0)
    device = next(model.parameters()).device
    model.eval()
    parts = np.array_split(chosen, -(-len(chosen) // BATCH))
    found = [extract(model, loader.make(0, part, slice(None)).images.to(device)).cpu() for part in parts]
    return SplitFeatures(torch.cat(found).numpy(), split.labels[chosen], chosen)


def knn_accuracy(known: SplitFeatures, asked: SplitFeatures, k: int) -> float:
    """The share of images whose class most of their `k` nearest known images have, by cosine."""
    from sklearn.neighbors import KNeighborsClassifier  # here, as giving features needs none of it

    voters = KNeighborsClassifier(min(k, len(known.labels)), metric="cosine").fit(known.features, known.labels)
    return float(voters.score(asked.features, asked.labels))


def linear_accuracy(known: SplitFeatures, asked: SplitFeatures, C: float) -> float:
    """The accuracy of a logistic regression on standardised features that do not change."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe: Any = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000))
    return float(probe.fit(known.features, known.labels).score(asked.features, asked.labels))


def judge(known: SplitFeatures, asked: SplitFeatures, settings: EvaluationSettings) -> dict[str, float]:
    """Both accuracies; none where the known images are of one class."""
    if len(np.unique(known.labels)) < 2:
        return {}
    return {
        "knn_accuracy": knn_accuracy(known, asked, settings.k),
        "linear_accuracy": linear_accuracy(known, asked, settings.C),
    }
