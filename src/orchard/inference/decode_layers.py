"""Layers for decoding steps of few rows, by the native kernels where they are there, else by torch's own.

They stand in the place of a model's linear layers and attentions where a whole step is not one native call
(`decode_step.py`). Weights are in float32, bf16, or int8 with a scale per output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.inference.kernels import native_kernels
from orchard.nn.attention import Attention, KVCache


class DecodeLinear(nn.Module):
    """y = x Wᵀ + b, (..., in) → (..., out), for a handful of rows, in the type of x.

    With `int8` every weight is rounded to one of 255 steps between its row's largest and the negative of it; the native
    kernel then also rounds x, to 16 bits of its row's largest.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, int8: bool):
        super().__init__()
        scale = None
        if int8:
            scale = (weight.detach().float().abs().amax(1) / 127).clamp_min(1e-12)
            weight = (weight.detach().float() / scale[:, None]).round().to(torch.int8)
        self.outputs = len(weight)
        self.native = weight.is_cpu and native_kernels()
        weight = weight.detach().contiguous()
        if self.native:
            weight = torch.ops.orchard.pack(weight)
        elif int8:
            weight = F.pad(weight, (0, -weight.shape[1] % 32))  # torch's kernel crashes at some lengths
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale: Tensor | None
        self.bias: Tensor | None
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if bias is None else bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2)
        scale, bias = self.scale, self.bias
        if self.native:
            y = torch.ops.orchard.rows(flat, self.weight, scale, bias, self.outputs)
        elif isinstance(scale, Tensor):
            flat = F.pad(flat, (0, self.weight.shape[1] - flat.shape[1]))
            y = torch._weight_int8pack_mm(flat, self.weight, scale.to(flat.dtype))
            y = y if bias is None else y + bias.to(y.dtype)
        else:
            y = F.linear(flat, self.weight, None if bias is None else bias.to(flat.dtype))
        return y.view(*x.shape[:-1], y.shape[-1])


class DecodeAttention(nn.Module):
    """`Attention` where one token of each row follows what is cached."""

    def __init__(self, attention: Attention):
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor, *, mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        if x.shape[1] > 1 or cache is None:
            y: Tensor = self.attention(x, mask=mask, cache=cache)
            return y
        q, k, v = self.attention.project_qkv(x, cache.positions)
        keys, values = cache.extend(k, v)
        seen = torch.arange(keys.shape[2], device=x.device) <= cache.positions
        y = torch.ops.orchard.attend(q, keys, values, seen if mask is None else seen & mask)
        return self.attention.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def use_decode_layers(model: nn.Module, *, int8: bool) -> None:
    """Put the layers of this file in the place of a model's linear layers and causal self-attentions.

    A head that is tied to a table becomes a linear layer of its own.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, DecodeLinear(child.weight, child.bias, int8=int8))
            elif type(child) is Attention and child.causal and child.qkv.weight.is_cpu and native_kernels():
                setattr(module, name, DecodeAttention(child))
    if getattr(model.config, "tied_head", False):
        model.head = DecodeLinear(model.token.weight, None, int8=int8)  # type: ignore[union-attr,arg-type]
