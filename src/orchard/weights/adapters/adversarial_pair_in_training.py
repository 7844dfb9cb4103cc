"""Adversarial pairs of improved_wgan_training, whose batch norm uses the statistics of the batch always."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored


def call_in_training(network: nn.Module, *inputs: Tensor) -> Tensor:
    """A network in training mode, whose running averages stay as they are."""
    was_training = network.training
    try:
        kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
        result: Tensor = functional_call(network.train(), kept, inputs)
    finally:
        network.train(was_training)
    return result


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Images of noise, and scores of images."""
    pair: Any = model
    return {
        "images": call_in_training(pair.generator, inputs["noise"]),
        "scores": call_in_training(pair.discriminator, inputs["images"]),
    }


def stored(case: Stored) -> Stored:
    """The variables, with the running averages and counters that ours has besides, as they start."""
    state = dict(case.state)
    for scale in [name for name in state if name.startswith("Generator.") and name.endswith(".scale")]:
        name, units = scale.removesuffix(".scale"), state[scale].numel()
        state.setdefault(f"{name}.moving_mean", torch.zeros(units))
        state.setdefault(f"{name}.moving_variance", torch.ones(units))
        state[f"{name}.steps"] = torch.tensor(0)
    return replace(case, state=state)


ADAPTER = Adapter(run=run, stored=stored)
