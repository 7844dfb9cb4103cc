"""DeepChem's A2C on Pong: states stored as packed bits, probabilities where our network has their logarithms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored


def _as_one_sequence(stored: Stored) -> Stored:
    tensors = dict(stored.tensors)
    states = np.unpackbits(tensors["in.states_packed"].numpy(), axis=-1)
    tensors["in.observations"] = torch.from_numpy(states.astype(np.float32))[None, :, None]
    tensors["in.began"] = torch.zeros(1, len(states), dtype=torch.bool)
    tensors["out.log_probabilities"] = tensors["out.action_prob"].log()
    tensors["out.values"] = tensors["out.value"].squeeze(-1)
    return replace(stored, tensors=tensors)


def _unroll(model: nn.Module, inputs: dict[str, Tensor]) -> Any:
    network: Any = model
    return network.unroll(**inputs)


ADAPTER = Adapter(stored=_as_one_sequence, run=_unroll)
