"""Style-based adversarial pairs of rosinality: styles, images of given and of stored noise, mixed and truncated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored

MIXED_FROM = 3  # the first style of the second noise
TRUNCATION = 0.7


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the generator makes of `noise`, `second`, `mean` and the noise maps `map_N`, and scores of `images`."""
    pair: Any = model
    maps = [inputs[f"map_{n}"] for n in range(len(pair.generator.convs))]
    first, second, mean = pair.latents(inputs["noise"]), pair.latents(inputs["second"]), inputs["mean"]
    images = pair.synthesise(first, maps)
    return {
        "styles": first,
        "images": images,
        "stored": pair(inputs["noise"]),
        "mixed": pair.synthesise(torch.cat([first[:, :MIXED_FROM], second[:, MIXED_FROM:]], 1), maps),
        "truncated": pair.synthesise(mean + TRUNCATION * (first - mean), maps),
        "real": pair.discriminator(inputs["images"])[:, None],
        "fake": pair.discriminator(images)[:, None],
    }


def stored(case: Stored) -> Stored:
    """Both networks and their gradients under the names of a pair, and the running mean of path lengths."""
    full = {"g": "generator", "d": "discriminator"}
    state = {f"{full[name.partition('.')[0]]}.{name.partition('.')[2]}": tensor for name, tensor in case.state.items()}
    moved = {"out.r1_weighted_grad.": "discriminator.", "out.path_weighted_grad.": "generator."}
    tensors = dict(case.tensors)
    for start, network in moved.items():
        for name in [name for name in tensors if name.startswith(start)]:
            tensors[f"{start}{network}{name.removeprefix(start)}"] = tensors.pop(name)
    tensors["in.path_mean"] = torch.tensor(case.meta["args"]["mean_path_length"])
    return replace(case, state=state, tensors=tensors)


ADAPTER = Adapter(run=run, stored=stored)
