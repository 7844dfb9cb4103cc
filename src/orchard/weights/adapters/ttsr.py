"""TTSR: the picture, and what of the reference it was made with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from orchard.nn.vgg_features import Normalise
from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored

CONSTANT = "LTE.sub_mean."


def stored(case: Stored) -> Stored:
    """The one layer whose weights are constants, which the rule of the case leaves out."""
    constants = {CONSTANT + name: tensor for name, tensor in Normalise().state_dict().items()}
    return replace(case, state={**case.state, **constants})


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """The picture, the relevance, and the mean of each channel of the textures, the coarsest first."""
    network: Any = model
    textures = network.textures(**inputs)
    means = [level.mean((0, 2, 3)) for level in textures.levels]
    return {"image": network.synthesise(inputs["images"], textures), "soft": textures.soft, "means": means}


ADAPTER = Adapter(stored=stored, run=run)
