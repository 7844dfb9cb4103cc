"""Adapters: what a reference needs beyond names, written as code.

A row of a card says `adapter = "NAME"`, and `orchard/weights/adapters/NAME.py` ends with `ADAPTER = Adapter(...)`, with
the functions that the reference needs. There is no list of adapters.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from orchard.errors import OrchardError
from orchard.weights.golden import Stored


@dataclass(frozen=True)
class Adapter:
    """Where a proof goes another way than by names.

    build: makes the reference's network of the row's `theirs`, where naming its constructor is not enough;
    call: calls the reference; the tensors come under our names;
    stored: a golden case in another form, such as images made from smaller ones, an offset taken away;
    run: what of ours is compared, where it is not what `forward` returns; takes our model and the inputs;
    targets: what the loss takes beside the inputs, for references that run; takes our configuration and the inputs.
    """

    build: Callable[..., nn.Module] | None = None
    call: Callable[[nn.Module, dict[str, Tensor]], Any] | None = None
    stored: Callable[[Stored], Stored] = lambda stored: stored
    run: Callable[[nn.Module, dict[str, Tensor]], Any] = lambda model, inputs: model(**inputs)
    targets: Callable[[Any, dict[str, Tensor], torch.Generator], dict[str, Tensor]] = lambda *_: {}


def adapter_of(name: str) -> Adapter:
    """The adapter that a card names; without a name, the one that changes nothing."""
    if not name:
        return Adapter()
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":  # it is there and needs a package that is not
            raise OrchardError(f"the adapter '{name}' needs {error.name}: pip install 'orchard[test]'") from None
        raise OrchardError(f"no adapter '{name}': expected orchard/weights/adapters/{name}.py") from None
    adapter: Adapter = module.ADAPTER
    return adapter
