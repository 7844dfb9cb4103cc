"""What a model costs: its arithmetic, counted without doing it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def multiply_adds(model: nn.Module, *inputs: Sequence[int] | Tensor) -> int:
    """Multiply-adds of one forward pass in evaluation mode on `inputs`: tensors, or shapes (batch included).

    Counted are matrix products, convolutions and attention, as the field counts them; sums, norms and activations
    are not. The pass runs on a copy that lives on the meta device: shapes are followed, nothing is computed.
    """
    from torch.utils.flop_counter import FlopCounterMode  # here, as it brings the compiler's languages with it

    sketch = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        sketch(*(i.to("meta") if isinstance(i, Tensor) else torch.empty(tuple(i), device="meta") for i in inputs))
    return int(counter.get_total_flops()) // 2


def bytes_moved(model: nn.Module, *shapes: Sequence[int]) -> int:
    """Bytes that the convolutions and linear layers of one forward pass read and write, each tensor once a layer.

    What lies between them (norms, activations) is left out, as it can be computed while they write: a lower bound of
    the traffic where the tensors do not stay in the cache. `shapes` are those of the inputs, batch included.
    """
    sketch = copy.deepcopy(model).to("meta").eval()
    numbers = 0

    def count(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal numbers
        numbers += given[0].numel() + out.numel() + sum(weight.numel() for weight in layer.parameters())

    for layer in sketch.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        sketch(*(torch.empty(tuple(shape), device="meta") for shape in shapes))
    return numbers * torch.empty(()).element_size()


def weight_bytes(model: nn.Module) -> int:
    """Bytes of the parameters and buffers, as they are saved."""
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
