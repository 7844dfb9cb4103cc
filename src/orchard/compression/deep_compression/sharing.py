"""Weights that share values: one-dimensional k-means, then centroids that learn (section 3 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn.utils import parametrize


def cluster(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Centroids (k,) of the weights that are not zero, and codes of the weight's shape: 0 is zero, i centroid i - 1.

    k is 2**bits or as many different values as there are. Centroids start evenly between the smallest and the largest
    value, which keeps some for the few large weights (section 3.2).
    """
    kept = weight != 0
    values = weight[kept].float().cpu().numpy()
    k = min(2**bits, len(np.unique(values)))
    start = np.linspace(values.min(), values.max(), k, dtype=np.float32)[:, None]
    found = KMeans(k, init=start, n_init=1).fit(values[:, None])
    codes = torch.zeros(weight.shape, dtype=torch.int64)
    codes[kept.cpu()] = torch.from_numpy(found.labels_.astype(np.int64)) + 1
    return torch.from_numpy(found.cluster_centers_[:, 0].astype(np.float32)), codes


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
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight")
        centroids, codes = clusters[name]
        device = layer.weight.device  # type: ignore[union-attr]
        parametrize.register_parametrization(layer, "weight", Shared(centroids, codes.to(device)))  # type: ignore[arg-type]
