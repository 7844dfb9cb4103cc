"""How the config.json of an int8 model says which layers are in eight bits, and the model that is built so.

Under `facts.quantization`: `layers` has the grid of each layer's input, [scale, zero], that of its output where it has
one, and the name of the batch norm that its weights hold. The int8 weights are in model.safetensors under the name that
they have in float, and their scales beside them as `weight_scale`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from orchard.errors import OrchardError, first_line
from orchard.nn.quantized import Grid, Grids, can_be_quantized, drop_norm, to_int8

FACT = "quantization"  # its key among the facts
Numbers = tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], Annotated[int, Field(ge=0, le=255)]]


class QuantizedLayer(BaseModel):
    """One layer of the table."""

    model_config = ConfigDict(extra="forbid")

    input: Numbers
    output: Numbers | None = None
    norm: str | None = None

    @property
    def grids(self) -> Grids:
        return Grids(Grid(*self.input), None if self.output is None else Grid(*self.output))


class Quantization(BaseModel):
    """The table."""

    model_config = ConfigDict(extra="forbid")

    weights: Literal["int8, -63 to 63, a scale for each output channel"]
    activations: Literal["uint8, a scale and a zero point for each tensor"]
    learned: bool  # with the rounding, or rounded afterwards
    layers: dict[str, QuantizedLayer]

    @classmethod
    def of(cls, layers: Mapping[str, Grids], norms: Mapping[str, str], *, learned: bool) -> Quantization:
        """`norms` names the norms that layers hold, by the layer."""
        numbers = {
            name: QuantizedLayer(
                input=(grids.input.scale, grids.input.zero),
                output=None if grids.output is None else (grids.output.scale, grids.output.zero),
                norm=norms.get(name),
            )
            for name, grids in layers.items()
        }
        return cls(
            weights="int8, -63 to 63, a scale for each output channel",
            activations="uint8, a scale and a zero point for each tensor",
            learned=learned,
            layers=numbers,
        )


def build_quantized(model: nn.Module, table: Any) -> None:
    """Turn a model with fresh weights into the int8 one of the table, in place.

    Raises OrchardError for a table that is not of its form or names a layer that there is not.
    """
    try:
        found = Quantization.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join((FACT, *map(str, first["loc"])))
        raise OrchardError(f"'{key[:200]}': {first['msg'][0].lower()}{first['msg'][1:]}") from None
    for name, layer in found.layers.items():
        module = _module(model, name)
        if not can_be_quantized(module):
            raise OrchardError(f"'{FACT}.layers': '{name}' of this model is no convolution or linear layer")
        if layer.norm is not None:
            if not isinstance(_module(model, layer.norm), nn.BatchNorm2d):
                raise OrchardError(f"'{FACT}.layers.{name}.norm': '{layer.norm}' of this model is no batch norm")
            drop_norm(model, layer.norm)
            if module.bias is None:
                module.bias = nn.Parameter(torch.zeros(len(module.weight), device=module.weight.device))  # type: ignore[arg-type]
    to_int8(model, {name: layer.grids for name, layer in found.layers.items()})


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise OrchardError(f"'{FACT}.layers': this model has no layer '{name[:80]}': {first_line(error)}") from None
