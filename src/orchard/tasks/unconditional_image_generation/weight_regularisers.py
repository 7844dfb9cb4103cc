"""What is added to a network's loss for its weights alone."""

from __future__ import annotations

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


class HistoricalAverage(nn.Module):
    """The mean of a pair's parameters over all steps so far, kept beside it and in its checkpoints.

    Each network pays the squared distance of its parameters from their mean, which brings back those that run in
    circles (Salimans et al. 2016, arXiv:1606.03498, section 3.3).
    """

    generator: Tensor  # (P,) all its parameters, one after another
    discriminator: Tensor

    def __init__(self, pair: nn.Module):
        super().__init__()
        for side in ("generator", "discriminator"):
            self.register_buffer(side, torch.zeros_like(parameters_of(pair, side)))

    @torch.no_grad()
    def after_step(self, pair: nn.Module, step: int) -> None:
        """Count the parameters after the `step`-th step (from 1) in."""
        for side, mean in self.named_buffers():
            mean.lerp_(parameters_of(pair, side), 1 / step)

    def distance(self, pair: nn.Module, side: str, step: int) -> Tensor:
        """‖θ - mean‖² of one network in `step` (from 0), a scalar; 0 in the first step."""
        apart = (parameters_of(pair, side) - self.get_buffer(side)).square().sum()
        return apart if step else 0 * apart


def parameters_of(pair: nn.Module, side: str) -> Tensor:
    """All parameters of one of its networks in one row."""
    return torch.cat([parameter.flatten() for parameter in pair.get_submodule(side).parameters()])
