"""Networks with fewer channels than their configuration says, as pruning leaves them.

What is left of each layer is a table, `{"conv1": (12, None), "bn1": (12,), ...}`: outputs and inputs of a convolution
or a linear layer, features of a norm; None is as configured. The model carries it as `pruned`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Sizes = Mapping[str, Sequence[int | None]]


@torch.no_grad()
def keep(layer: nn.Module, outputs: Tensor | None = None, inputs: Tensor | None = None) -> None:
    """Leave a layer the outputs and inputs of these indices, in place; None keeps all. ValueError for another layer.

    A depthwise convolution has as many inputs as outputs, which are told by `outputs`, and so are a norm's features.
    """
    module: Any = layer
    if isinstance(layer, nn.Conv2d | nn.Linear):
        depthwise = isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels == layer.out_channels
        weight = module.weight
        if outputs is not None:
            weight = weight.index_select(0, outputs)
            if module.bias is not None:
                module.bias = nn.Parameter(module.bias.index_select(0, outputs))
        if inputs is not None:
            weight = weight.index_select(1, inputs)
        module.weight = nn.Parameter(weight)
        if isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = weight.shape
        else:
            layer.groups = len(weight) if depthwise else layer.groups
            layer.out_channels, layer.in_channels = len(weight), weight.shape[1] * layer.groups
    elif isinstance(layer, nn.BatchNorm2d):
        for name in ("weight", "bias", "running_mean", "running_var"):
            tensor = getattr(layer, name)
            if tensor is not None and outputs is not None:
                chosen = tensor.index_select(0, outputs)
                setattr(layer, name, nn.Parameter(chosen) if isinstance(tensor, nn.Parameter) else chosen)
        layer.num_features = len(outputs) if outputs is not None else layer.num_features
    else:
        raise ValueError(f"a {type(layer).__name__} cannot have fewer channels")


def sizes_of(layer: nn.Module) -> tuple[int, ...]:
    """What a table may say of a layer: outputs and inputs (of one group), or features."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        return len(layer.weight), layer.weight.shape[1]
    if isinstance(layer, nn.BatchNorm2d):
        return (layer.num_features,)
    raise ValueError(f"a {type(layer).__name__} cannot have fewer channels")


def narrow(model: nn.Module, table: Sizes) -> nn.Module:
    """Cut the layers of a fresh model to the sizes of a table, so that pruned weights fit; the model itself.

    Raises ValueError for a layer that there is not, and for sizes that the layer does not have.
    """
    layers = dict(model.named_modules())
    for name, sizes in table.items():
        if name not in layers:
            raise ValueError(f"'pruned' names a layer '{name}', which this model lacks")
        layer = layers[name]
        now = sizes_of(layer)
        if len(sizes) != len(now) or any(
            new is not None and not 1 <= new <= old for new, old in zip(sizes, now, strict=True)
        ):
            raise ValueError(f"'pruned' has {list(sizes)} for '{name}', which is {list(now)} as configured")
        device = next(layer.parameters()).device
        keep(layer, *(None if new is None else torch.arange(new, device=device) for new in sizes))
    if table:
        model.pruned = {name: list(sizes) for name, sizes in table.items()}  # type: ignore[assignment]
    return model
