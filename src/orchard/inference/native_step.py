"""A decoding step of a GPT-like model as one native call: tokens in, logits out.

Threads are gathered once for the embedding, all blocks, the last norm and the head, and nothing lies between. The model
does not know of it: its parts are found by their types and copied into the order in which they are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.inference.decode_layers import DecodeLinear
from orchard.inference.fast import TOLERANCE, relative_difference
from orchard.inference.kernels import native_kernels
from orchard.nn.attention import Attention
from orchard.nn.transformer import Mlp, PreNormBlock, Stack

DIFFERENCE = {**TOLERANCE, "int8": 2 * TOLERANCE["bf16"]}  # from the model in float32, relative to the logits' norm
MOST = 1024  # tokens of a prompt that go through the blocks at once; what lies between layers is held in memory


@dataclass(frozen=True)
class Parts:
    """What a language model is made of that adds a table of positions to its embedding."""

    tokens: Tensor  # (V, D)
    positions: Tensor  # (C, D)
    blocks: list[Any]
    norm: nn.LayerNorm
    head: Tensor  # (outputs, D)
    head_bias: Tensor | None


def parts_of(model: nn.Module) -> Parts | None:
    """The parts of a model on the CPU, if a native step can be made of them."""
    stack, position = getattr(model, "stack", None), getattr(model, "position", None)
    tokens: Any = getattr(model, "token", getattr(model, "tokens", None))
    if not (type(stack) is Stack and type(tokens) is nn.Embedding and tokens.weight.is_cpu and native_kernels()):
        return None
    positions: Any = position.weight if type(position) is nn.Embedding else position
    norm: Any = getattr(model, "norm", None) if type(stack.norm) is nn.Identity else stack.norm
    own = getattr(model, "head", None)
    head = tokens if own is None else own
    table = isinstance(positions, Tensor) and positions.shape[1:] == tokens.weight.shape[1:]
    known = table and _is_layer_norm(norm) and type(head) in (nn.Embedding, nn.Linear)
    if not (known and all(map(_is_known, stack.blocks)) and len(set(map(_shape, stack.blocks))) == 1):
        return None
    return Parts(tokens.weight, positions, list(stack.blocks), norm, head.weight, getattr(head, "bias", None))


def _is_layer_norm(norm: nn.Module) -> bool:
    return type(norm) is nn.LayerNorm and norm.elementwise_affine


def _is_known(block: nn.Module) -> bool:
    return (
        type(block) is PreNormBlock
        and type(block.attention) is Attention
        and block.attention.causal
        and block.attention.position_encoding is None
        and type(block.mlp) is Mlp
        and type(block.mlp.activation) is nn.GELU
        and _is_layer_norm(block.norm1)
        and _is_layer_norm(block.norm2)
    )


def _shape(block: Any) -> tuple[int, int, int, bool]:
    """What the kernel is told of a block beside its tensors."""
    heads, width = block.attention.heads, block.attention.head_width
    return heads, width, block.mlp.fc1.out_features, block.mlp.activation.approximate == "tanh"


class NativeStep:
    """Called as `decoding.Step` is, with a cache of its own for `rows` sequences of `length` tokens."""

    def __init__(self, parts: Parts, rows: int, length: int, *, precision: str):
        self.rows, self.precision = rows, precision
        self.tried = torch.arange(min(2, length))[None] % len(parts.tokens)
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        heads, head_width, hidden, tanh = _shape(parts.blocks[0])
        shape = (len(parts.blocks), 2, rows, heads, length, head_width)
        self.cache = torch.zeros(shape, dtype=dtype)
        norms = [norm for block in parts.blocks for norm in (block.norm1, block.norm2)] + [parts.norm]
        linears = [one for b in parts.blocks for one in (b.attention.qkv, b.attention.out, b.mlp.fc1, b.mlp.fc2)]
        pairs = [(one.weight, one.bias) for one in linears] + [(parts.head, parts.head_bias)]
        int8 = precision == "int8"
        packed = [DecodeLinear(weight if int8 else weight.to(dtype), bias, int8=int8) for weight, bias in pairs]
        tables = [table.detach().to(dtype).contiguous() for table in (parts.tokens, parts.positions)]
        keys, values = ([layer[n] for layer in self.cache] for n in range(2))
        filled = [one for norm in norms for one in (_filled(norm.weight, norm), _filled(norm.bias, norm))]
        weights, scales, biases = ([getattr(one, name) for one in packed] for name in ("weight", "scale", "bias"))
        eps = [norm.eps for norm in norms]
        outputs = packed[-1].outputs
        self.native = torch.classes.orchard.Decoding(
            *tables, keys, values, filled, eps, weights, scales, biases, hidden, outputs, tanh
        )

    def __call__(self, tokens: Tensor, positions: Tensor, starts: Tensor) -> Tensor:
        """Logits (R, V) after the last of tokens (R, T) at `positions` (T,) of the cache; row r begins at starts[r]."""
        return self.native.step(tokens, positions, starts, MOST)  # type: ignore[no-any-return]

    @torch.no_grad()
    def agrees_with(self, model: nn.Module) -> bool:
        """Does it give what the model gives for two tokens? Another model may join the same parts in another way."""
        positions, starts = torch.arange(self.tried.shape[1]), torch.zeros(self.rows, dtype=torch.int64)
        expected = model(self.tried)[:, -1].float()
        found = self(self.tried.expand(self.rows, -1), positions, starts)[:1]
        difference = relative_difference(found, expected) if found.shape == expected.shape else float("nan")
        return difference <= DIFFERENCE[self.precision]  # false for NaN


def native_step(model: nn.Module, rows: int, length: int, *, precision: str) -> NativeStep | None:
    """One native call for each step of a model, or None for a model of other parts."""
    parts = parts_of(model)
    if parts is None:
        return None
    step = NativeStep(parts, rows, length, precision=precision)
    return step if step.agrees_with(model) else None


def _filled(values: Tensor | None, norm: nn.LayerNorm) -> Tensor:
    """What a norm multiplies with or adds, in float32, with zeros up to a multiple of 32."""
    width = norm.normalized_shape[0]
    values = torch.zeros(width) if values is None else values.detach().float()
    return F.pad(values, (0, -width % 32))
