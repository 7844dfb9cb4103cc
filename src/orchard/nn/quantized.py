"""Convolutions and linear layers in eight bits: int8 weights, uint8 activations.

Weights have a scale for each output channel and no zero point; activations a scale and a zero point for the whole
tensor (Jacob et al. 2018, arXiv:1712.05877, section 2). Of the weights' eight bits seven are used, -63 to 63:
processors without a dot product of bytes add two products of a uint8 and an int8 in 16 bits, which the eighth would
overflow.

In torch the layers compute with the numbers that the bytes stand for, in float32. Engines that run an exported graph
find the pairs of quantize and dequantize in it, and compute in whole numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

LARGEST = 63  # of a weight, in whole numbers
LEVELS = 255  # of an activation, the lowest being 0
OPERATORS = torch.ops.quantized_decomposed  # registered by `to_int8`


@dataclass(frozen=True)
class Grid:
    """The numbers that the bytes of a tensor stand for: scale · (byte - zero)."""

    scale: float
    zero: int

    def __call__(self, x: Tensor) -> Tensor:
        """x, each number replaced by the nearest on the grid."""
        about = (self.scale, self.zero, 0, LEVELS, torch.uint8)
        whole = OPERATORS.quantize_per_tensor(x.float(), *about)
        near: Tensor = OPERATORS.dequantize_per_tensor(whole, *about)
        return near


@dataclass(frozen=True)
class Grids:
    """Those of a layer's activations. The output has one where it is added to something; else the next layer has it."""

    input: Grid
    output: Grid | None = None


class Int8(nn.Module):
    """What `Int8Conv2d` and `Int8Linear` share: `weight` is int8, `weight_scale` float32 (output channels,)."""

    weight: Tensor
    weight_scale: Tensor
    zeros: Tensor
    grids: Grids

    def whole_weights(self, grids: Grids) -> None:
        """Turn the layer's float weights into whole numbers."""
        self.grids = grids
        scale = weight_scale(self.weight)
        whole = (self.weight.detach() / _beside(scale, self.weight)).round().to(torch.int8)
        self.weight = nn.Parameter(whole, requires_grad=False)
        self.register_buffer("weight_scale", scale)
        self.register_buffer("zeros", torch.zeros(len(scale), dtype=torch.int64), persistent=False)

    def weights(self) -> Tensor:
        """The numbers that the whole numbers stand for."""
        about = (self.weight_scale, self.zeros, 0, -128, 127, torch.int8)
        found: Tensor = OPERATORS.dequantize_per_channel(self.weight, *about)
        return found

    def put_out(self, y: Tensor) -> Tensor:
        return y if self.grids.output is None else self.grids.output(y)


class Int8Conv2d(Int8, nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.put_out(super()._conv_forward(self.grids.input(input), self.weights(), bias))


class Int8Linear(Int8, nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return self.put_out(nn.functional.linear(self.grids.input(input), self.weights(), self.bias))


class Rounded(nn.Module):
    """What layers share that learn with rounded weights and activations; a gradient passes the rounding as it is, and
    stops where an activation is beyond its grid (Jacob et al. 2018, section 3). The grids stay as they are."""

    weight: Tensor
    plain_class: type[nn.Module]  # what the layer was
    input_grid: Tensor  # scale and zero, float64 (2,)
    output_grid: Tensor

    def round_from_now(self, grids: Grids) -> None:
        for name, grid in (("input_grid", grids.input), ("output_grid", grids.output)):
            numbers = [] if grid is None else [grid.scale, grid.zero]
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.float64))

    def round_no_more(self) -> None:
        """Become again what the layer was, with the weights as they are now."""
        self.__class__ = self.plain_class  # type: ignore[assignment]
        del self.plain_class, self.input_grid, self.output_grid

    @property
    def grids(self) -> Grids:
        """The grids, as a checkpoint may have brought them."""
        grids = [Grid(float(b[0]), int(b[1])) if len(b) else None for b in (self.input_grid, self.output_grid)]
        assert grids[0] is not None
        return Grids(grids[0], grids[1])

    def weights(self) -> Tensor:
        scale = weight_scale(self.weight)
        zeros = torch.zeros(len(scale), dtype=torch.int32, device=scale.device)
        return torch.fake_quantize_per_channel_affine(self.weight.float(), scale, zeros, 0, -LARGEST, LARGEST)


def _rounded(x: Tensor, grid: Tensor) -> Tensor:
    return (
        torch.fake_quantize_per_tensor_affine(x.float(), grid[0].float(), grid[1].to(torch.int32), 0, LEVELS)
        if len(grid)
        else x
    )


class RoundedConv2d(Rounded, nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = super()._conv_forward(_rounded(input, self.input_grid), self.weights(), bias)
        return _rounded(y, self.output_grid)


class RoundedLinear(Rounded, nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        y = nn.functional.linear(_rounded(input, self.input_grid), self.weights(), self.bias)
        return _rounded(y, self.output_grid)


def weight_scale(weight: Tensor) -> Tensor:
    """The scale of each output channel of a layer's weights, float32: its largest becomes 63."""
    return (weight.detach().float().abs().flatten(1).amax(1) / LARGEST).clamp_min(1e-12)


def _beside(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (weight.ndim - 1))


def can_be_quantized(layer: nn.Module) -> bool:
    """Does the layer compute as its class in torch does, whatever it does to its input before?"""
    if isinstance(layer, nn.Conv2d):
        own = type(layer)._conv_forward is nn.Conv2d._conv_forward
        return own and (layer.padding_mode == "zeros")  # other borders are made before the input is rounded
    return isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward


def fold_norm(model: nn.Module, layer: str, norm: str) -> None:
    """Put a batch norm's gains and statistics, as evaluation has them, into the convolution before it."""
    conv, bn = model.get_submodule(layer), model.get_submodule(norm)
    assert isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d)
    assert bn.running_mean is not None and bn.running_var is not None
    with torch.no_grad():
        conv.weight, conv.bias = fuse_conv_bn_weights(  # type: ignore[assignment]
            conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
        )
    drop_norm(model, norm)


def drop_norm(model: nn.Module, norm: str) -> None:
    """Leave nothing where a norm was that the layer before it holds now."""
    model.set_submodule(norm, nn.Identity())


def to_int8(model: nn.Module, layers: Mapping[str, Grids]) -> None:
    """Turn layers, by their names, into int8 ones with these grids, in place."""
    import torch.ao.quantization.fx._decomposed  # noqa: F401 registers the operators, and takes too long for all others

    for name, grids in layers.items():
        layer: Any = model.get_submodule(name)
        if isinstance(layer, Rounded):
            layer.round_no_more()
        layer.__class__ = _class(Int8Conv2d if isinstance(layer, nn.Conv2d) else Int8Linear, type(layer))  # type: ignore[arg-type]
        layer.whole_weights(grids)


def to_rounded(model: nn.Module, layers: Mapping[str, Grids]) -> None:
    """Turn layers, by their names, into ones that learn with rounded numbers, in place."""
    for name, grids in layers.items():
        layer: Any = model.get_submodule(name)
        layer.plain_class = type(layer)
        layer.__class__ = _class(RoundedConv2d if isinstance(layer, nn.Conv2d) else RoundedLinear, type(layer))  # type: ignore[arg-type]
        layer.round_from_now(grids)


@functools.cache
def _class(mixed: type[nn.Module], kind: type[nn.Module]) -> type[nn.Module]:
    """A layer's own class in eight bits: what it does before the convolution, such as SAME padding, stays."""
    return mixed if kind in (nn.Conv2d, nn.Linear) else type(f"{mixed.__name__}{kind.__name__}", (mixed, kind), {})


def quantized_layers(model: nn.Module) -> dict[str, Int8]:
    """The int8 layers of a model by their names; none of another one."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Int8)}
