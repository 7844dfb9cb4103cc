"""Features of images: what a model's head is given. And what they are worth: k-NN and a linear probe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.contracts import ImageSplit, Preprocess
from orchard.data.loader import Loader
from orchard.errors import UsageError
from orchard.inference.loading import Loaded
from orchard.tasks.image_feature_extraction.settings import EvaluationSettings
from orchard.tasks.registry import task_named

BATCH = 64


@contextmanager
def features_before_head(model: nn.Module) -> Iterator[list[Tensor]]:
    """While it lasts, every forward pass adds what the head is given, (B, D), or (B, L, D) of several layers; of a map
    its mean, (B, C).

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


def encoder_for(loaded: Loaded, layer: int | str | None = None) -> nn.Module:
    """What gives features of images with a trained model of any task that this one knows: the model, or what its task
    makes of it. `layer` is one of those that it offers, or "all". Raises UsageError for a layer that there is not."""
    task = task_named(loaded.task)
    model: Any = task.load(task.image_encoder)(loaded) if task.image_encoder else loaded.model
    if layer is None:
        return model  # type: ignore[no-any-return]
    layers = getattr(model, "layers", 0)
    if not layers:
        raise UsageError(f"setting 'evaluation.layer': {loaded.name} has features of one layer; leave it out")
    if isinstance(layer, int) and layer >= layers:
        raise UsageError(f"setting 'evaluation.layer' is {layer}, expected 0 to {layers - 1}")
    model.layer = None if layer == "all" else layer
    return model  # type: ignore[no-any-return]


@dataclass(frozen=True)
class SplitFeatures:
    """Some images of a split: features (N, D) float32, or (N, L, D) of several layers, labels (N,) and indices (N,)
    int64."""

    features: np.ndarray
    labels: np.ndarray
    indices: np.ndarray

    def layer(self, number: int) -> SplitFeatures:
        """Those of one of several layers."""
        return replace(self, features=self.features[:, number])


def split_features(model: nn.Module, split: ImageSplit, preprocess: Preprocess, most: int) -> SplitFeatures:
    """Features of up to `most` images of a split, at even distances."""
    device = next(model.parameters()).device
    model.eval()
    return _each(split, preprocess, most, lambda images: extract(model, images.to(device)).cpu())


def split_pixels(split: ImageSplit, preprocess: Preprocess, most: int) -> SplitFeatures:
    """The pixels of the same images, as a model is given them."""
    return _each(split, preprocess, most, lambda images: images.flatten(1))


def _each(split: ImageSplit, preprocess: Preprocess, most: int, look: Callable[[Tensor], Tensor]) -> SplitFeatures:
    chosen = np.unique(np.linspace(0, len(split) - 1, min(most, len(split))).round().astype(np.int64))
    loader = Loader(split, preprocess, None, batch_size=BATCH, seed=0, workers=0)
    parts = np.array_split(chosen, -(-len(chosen) // BATCH))
    found = [look(loader.make(0, part, slice(None)).images) for part in parts]
    return SplitFeatures(torch.cat(found).numpy(), split.labels[chosen], chosen)


def knn_accuracy(known: SplitFeatures, asked: SplitFeatures, settings: EvaluationSettings) -> float:
    """The share of images whose class most of their `k` nearest known images have, by cosine; with a temperature the
    most votes (Wu et al. 2018, arXiv:1805.01978, equation 8 and section 3.4)."""
    from sklearn.neighbors import KNeighborsClassifier  # here, as giving features needs none of it

    weights: Any = partial(_votes, settings.temperature) if settings.temperature else "uniform"
    k = min(settings.k, len(known.labels))
    voters = KNeighborsClassifier(k, metric="cosine", weights=weights).fit(known.features, known.labels)
    return float(voters.score(asked.features, asked.labels))


def _votes(temperature: float, distances: np.ndarray) -> np.ndarray:
    """Of neighbours at cosine distances (N, k), as shares of that of the nearest, so that none overflows."""
    votes: np.ndarray = np.exp((distances.min(axis=1, keepdims=True) - distances) / temperature)
    return votes


def linear_accuracy(known: SplitFeatures, asked: SplitFeatures, C: float) -> float:
    """The accuracy of a logistic regression on standardised features that do not change."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe: Any = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000))
    return float(probe.fit(known.features, known.labels).score(asked.features, asked.labels))


def judge(known: SplitFeatures, asked: SplitFeatures, settings: EvaluationSettings) -> dict[str, float]:
    """Both accuracies, of each layer where there are several; none where the known images are of one class."""
    if len(np.unique(known.labels)) < 2:
        return {}
    if known.features.ndim == 3:
        return {
            f"{name}_layer_{n}": value
            for n in range(known.features.shape[1])
            for name, value in judge(known.layer(n), asked.layer(n), settings).items()
        }
    return {
        "knn_accuracy": knn_accuracy(known, asked, settings),
        "linear_accuracy": linear_accuracy(known, asked, settings.C),
    }
