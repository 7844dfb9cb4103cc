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


def weight_bytes(model: nn.Module) -> int:
    """Bytes of the parameters and buffers, as they are saved."""
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
