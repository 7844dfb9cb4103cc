"""Which weights stay: the largest of all, or those above a share of their layer's standard deviation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from orchard.errors import UsageError

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def prunable(model: nn.Module) -> dict[str, nn.Module]:
    """The layers whose weights are pruned and shared, by name: linear ones and convolutions.

    Biases and norms stay as they are, as in the paper: they are few. UsageError where there is no such layer, and
    where two share a weight.
    """
    found: dict[str, nn.Module] = {name: module for name, module in model.named_modules() if isinstance(module, LAYERS)}
    if not found:
        raise UsageError(f"{type(model).__name__} has no linear layer and no convolution whose weights could be pruned")
    owners = {id(next(layer.parameters())): name for name, layer in found.items()}
    if len(owners) < len(found):
        raise UsageError(f"two layers of {type(model).__name__} have one weight, which is not pruned yet")
    return found


def masks_by_std(weights: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """Kept (true) is what is at least `factor` standard deviations of its own tensor, zeros of before included."""
    return {name: w.abs() >= factor * w.std(correction=0) for name, w in weights.items()}


def masks_by_sparsity(weights: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Kept (true) are the largest of all weights together, so that `sparsity` of them become zero."""
    sizes = torch.cat([w.detach().abs().flatten() for w in weights.values()])
    count = min(round(sparsity * len(sizes)), len(sizes) - 1)
    threshold = sizes.kthvalue(count).values if count else sizes.new_zeros(())
    return {name: w.abs() > threshold for name, w in weights.items()}


class Masked(nn.Module):
    """A weight whose pruned entries are zero, and get no gradient."""

    mask: Tensor

    def __init__(self, mask: Tensor):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def mask(layers: Mapping[str, nn.Module], masks: Mapping[str, Tensor]) -> None:
    """Prune: from now on the masked entries are zero whatever the optimizer does. UsageError where a layer dies."""
    for name, layer in layers.items():
        if not bool(masks[name].any()):
            raise UsageError(f"nothing of layer '{name}' would be left; take a smaller --set sparsity or --set std")
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight")
        parametrize.register_parametrization(layer, "weight", Masked(masks[name]))
