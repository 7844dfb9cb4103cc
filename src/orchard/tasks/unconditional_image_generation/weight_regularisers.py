"""What is added to a network's loss for its weights alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

TABLES = (nn.Embedding, nn.EmbeddingBag)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def orthogonality(network: nn.Module) -> Tensor:
    """How far the filters of all layers are from orthogonal, whatever their lengths: a scalar.

    The sum of ‖W Wᵀ ⊙ (1 - I)‖² over all weights, a filter to a row of W (Brock et al. 2018, arXiv:1809.11096, equation
    3; the authors' code steps by half of its gradient). Tables of embeddings are left out.
    """
    terms = []
    for module in network.modules():
        if isinstance(module, TABLES):
            continue
        for weight in module.parameters(recurse=False):
            if weight.ndim < 2:
                continue
            filters = weight.transpose(0, 1) if isinstance(module, TRANSPOSED) else weight
            w = filters.flatten(1)
            gram = w @ w.T
            terms.append((gram - gram.diag().diag()).square().sum())
    return torch.stack(terms).sum()


class HistoricalAverage:
    """The mean of a pair's parameters over all steps so far, which is in `memory`.

    Each network pays the squared distance of its parameters from their mean, which brings back those that run in
    circles (Salimans et al. 2016, arXiv:1606.03498, section 3.3).
    """

    SIDES = ("generator", "discriminator")

    def __init__(self, pair: nn.Module):
        self.memory = {f"mean_{side}": torch.zeros_like(parameters_of(pair, side)) for side in self.SIDES}
        self.memory["mean_steps"] = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def update(self, learner: Any) -> None:
        """Count the parameters in, once a step; `learner` has `model`, the pair, and the memory as buffers."""
        steps = learner.get_buffer("mean_steps").add_(1)
        for side in self.SIDES:
            learner.get_buffer(f"mean_{side}").lerp_(parameters_of(learner.model, side), 1 / int(steps))

    def distance(self, learner: Any, side: str) -> Tensor:
        """‖θ - mean‖² of one network, a scalar; 0 as long as there is no mean."""
        apart = (parameters_of(learner.model, side) - learner.get_buffer(f"mean_{side}")).square().sum()
        return apart * learner.get_buffer("mean_steps").clamp(max=1)


def parameters_of(pair: nn.Module, side: str) -> Tensor:
    """All parameters of one of its networks in one row."""
    return torch.cat([parameter.flatten() for parameter in pair.get_submodule(side).parameters()])
