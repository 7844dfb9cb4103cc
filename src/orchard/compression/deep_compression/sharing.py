"""Weights that share values: one-dimensional k-means, then centroids that learn (section 3 of the paper)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn
from torch.nn.utils import parametrize

from orchard.weights.deep_compression import SharedWeight


def cluster(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Centroids (k,) of the weights that are not zero, and codes of the weight's shape: 0 is zero, i centroid i - 1.

    k is 2**bits or as many different values as there are. Centroids start evenly between the smallest and the largest
    value, which keeps some for the few large weights (section 3.2).
    """
    kept = weight != 0
    values = weight[kept].float().cpu().numpy()
    k = min(2**bits, len(np.unique(values)))
    start = np.linspace(values.min(), values.max(), k, dtype=np.float32)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of clusters that end empty, which are left out
        found = KMeans(k, init=start, n_init=1).fit(values[:, None])
    used, labels = np.unique(found.labels_, return_inverse=True)
    codes = torch.zeros(weight.shape, dtype=torch.int64)
    codes[kept.cpu()] = torch.from_numpy(labels.astype(np.int64)) + 1
    return torch.from_numpy(found.cluster_centers_[used, 0].astype(np.float32)), codes


class Shared(nn.Module):
    """A weight made of centroids. The gradient of a centroid is the sum of its weights' (equation 3)."""

    codes: Tensor

    def __init__(self, centroids: Tensor, codes: Tensor):
        super().__init__()
        self.centroids = centroids
        self.register_buffer("codes", codes)

    def forward(self, centroids: Tensor) -> Tensor:
        table = torch.cat([centroids.new_zeros(1), centroids])
        return table.index_select(0, self.codes.flatten()).view(self.codes.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What is learned in place of the weight."""
        return self.centroids.to(weight)


def share(layers: Mapping[str, nn.Module], clusters: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """From now on centroids learn in place of weights."""
    for name, layer in layers.items():
        parametrize.remove_parametrizations(layer, "weight")  # the mask
        centroids, codes = clusters[name]
        shared = Shared(centroids, codes.to(layer.weight.device))  # type: ignore[arg-type, union-attr]
        parametrize.register_parametrization(layer, "weight", shared)


def shared_weights(layers: Mapping[str, nn.Module]) -> dict[str, SharedWeight]:
    """What the layers have now, by the names of their weights in a state dict; the layers become ordinary ones."""
    found = {}
    for name, layer in layers.items():
        weights: Any = layer.parametrizations.weight  # type: ignore[union-attr]
        found[f"{name}.weight"] = SharedWeight(weights.original.detach().cpu().clone(), weights[0].codes.cpu())
        parametrize.remove_parametrizations(layer, "weight")
    return found
