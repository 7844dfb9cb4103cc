"""rosinality's StyleGAN: styles, images and scores at two levels, with and without fading, mixed and truncated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from orchard.weights.adapters import Adapter
from orchard.weights.adapters.growing_pair import ALPHA, of_a_pair
from orchard.weights.golden import Stored

LEVELS = {"small": 3, "large": 5}
MIXED = slice(2, 6)  # the layers of the second noise: blocks 1 and 2
TRUNCATION = 0.7


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the generator makes of `noise`, `second`, `mean` and the noise `map_N` of each level, and scores.

    The port adds one noise map after both convolutions of a level.
    """
    pair: Any = model
    maps = [inputs[f"map_{n // 2}"] for n in range(12)]
    found: dict[str, Tensor] = {}
    for name, level in LEVELS.items():
        for start, alpha in (("", 1.0), ("fading_", ALPHA)):
            pair.grow_to(level, alpha)
            images = pair.synthesise(pair.latents(inputs["noise"]), maps)
            found |= {
                f"{start}{name}_images": images,
                f"{start}{name}_real": pair.discriminator(inputs[name])[:, None],
                f"{start}{name}_fake": pair.discriminator(images)[:, None],
            }
    pair.grow_to(LEVELS["small"], 1.0)
    first, second, mean = pair.latents(inputs["noise"]), pair.latents(inputs["second"]), inputs["mean"]
    layers = first.clone()
    layers[:, MIXED] = second[:, MIXED]
    found |= {
        "styles": first[:, 0],
        "mixed": pair.synthesise(layers, maps),
        "truncated": pair.synthesise(torch.lerp(mean, first, TRUNCATION), maps),
    }
    pair.grow_to(len(pair.sides) - 1, 1.0)
    return found


def stored(case: Stored) -> Stored:
    """Both networks under the names of a pair."""
    return replace(case, state=of_a_pair(case.state))


ADAPTER = Adapter(run=run, stored=stored)
