"""rosinality's progressive pair: images and scores at two levels, with and without a level that is being faded in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored

SMALL, LARGE = 0, 3  # the levels
ALPHA = 0.35


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the generator makes of `noise`, and the discriminator's answers to `small` and `large` images."""
    pair: Any = model
    found: dict[str, Tensor] = {}
    for name, images, level, alpha in (
        ("small_", "small", SMALL, 1.0), ("", "large", LARGE, 1.0), ("fading_", "large", LARGE, ALPHA)
    ):  # fmt: skip
        pair.grow_to(level, alpha)
        answers = pair.discriminator.outputs(inputs[images])
        found |= {
            f"{name}images": pair(inputs["noise"]),
            f"{name}scores": answers[:, 0],
            f"{name}classes": answers[:, 1:],
        }
    pair.grow_to(len(pair.sides) - 1, 1.0)
    return found


def stored(case: Stored) -> Stored:
    """Both networks under the names of a pair, and each image's class as a part of its noise."""
    classes = F.one_hot(case.given("label"), case.meta["args"]["n_label"]).float()
    noise = torch.cat([case.given("z"), classes], 1)
    return replace(case, state=of_a_pair(case.state), tensors={**case.tensors, "in.noise": noise})


def of_a_pair(state: Any) -> dict[str, Tensor]:
    """Tensors of `g.` and `d.` under the names that a pair's networks have."""
    full = {"g": "generator", "d": "discriminator"}
    return {f"{full[name.partition('.')[0]]}.{name.partition('.')[2]}": tensor for name, tensor in state.items()}


ADAPTER = Adapter(run=run, stored=stored)
