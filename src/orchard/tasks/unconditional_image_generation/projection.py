"""Projection: the style whose image is nearest to a given one (Karras et al. 2019, arXiv:1912.04958, appendix D).

The search is in W, one style for all layers, and over the noise maps, which a regulariser keeps from taking the image
into themselves. Noise that is added to the style fades out, so that the search sees much of W first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.tasks.unconditional_image_generation.latents import Latents

SAMPLES = 10_000  # styles whose mean the search begins with
LEARNING_RATE = 0.1  # of Adam, at its largest
RISE, FALL = 0.05, 0.25  # shares of the steps in which the learning rate rises and falls
NOISE, FADE = 0.05, 0.75  # standard deviation of the style's noise, in that of styles, and when it is gone
WEIGHT = 1e5  # of the regulariser of noise maps
SMALLEST = 8  # pixels a side down to which it looks at them


def project(
    pair: Any, distance: Callable[[Tensor], Tensor], steps: int, watch: Callable[[int], None] = lambda step: None
) -> Latents:
    """The style and noise maps whose image is at the least distance found.

    Args:
        pair: one with styles, in evaluation mode.
        distance: image (1, C, S, S) → a scalar.
        steps: of the search, 1,000 in the paper.
        watch: is told the number of every step when it is done.

    All that is random is of a seed of its own: the same call finds the same.
    """
    device, draws = next(pair.parameters()).device, torch.Generator().manual_seed(0)
    with torch.no_grad():
        w = pair.latents(pair.sample_noise(SAMPLES, draws).to(device))[:, :1]
    mean = w.mean(0, keepdim=True)
    std = (w - mean).square().sum(2).mean().sqrt()
    style = mean.clone().requires_grad_()
    maps = [level.to(device).requires_grad_() for level in pair.noise_maps(1, draws)]
    adam = torch.optim.Adam([style, *maps], betas=(0.9, 0.999))
    for step in range(steps):
        done = step / steps
        for group in adam.param_groups:
            group["lr"] = learning_rate(done)
        fade = max(0.0, 1 - done / FADE) ** 2
        moved = style + NOISE * fade * std * torch.randn(style.shape, generator=draws).to(device)
        with torch.enable_grad():
            loss = distance(pair.synthesise(moved.expand(-1, pair.layers, -1), maps)) + WEIGHT * map_penalty(maps)
        adam.zero_grad()
        torch.autograd.backward(loss, inputs=[style, *maps])  # the pair's own weights stay without gradients
        adam.step()
        with torch.no_grad():
            for level in maps:
                level.sub_(level.mean()).div_(level.square().mean().sqrt())
        watch(step + 1)
    return Latents(style.detach().expand(-1, pair.layers, -1), [level.detach() for level in maps])


def learning_rate(done: float) -> float:
    """Of the share of the search that is done: up in a straight line, down in half a cosine."""
    falling = min(1.0, (1 - done) / FALL)
    return LEARNING_RATE * min(1.0, done / RISE) * (0.5 - 0.5 * math.cos(math.pi * falling))


def map_penalty(maps: list[Tensor]) -> Tensor:
    """How alike neighbours in noise maps (1, 1, s, s) are, which in noise they are not: a scalar.

    The squared mean products of each pixel and the next one, down and across, at every size that is left when maps are
    averaged by fours.
    """
    terms = []
    for level in maps:
        while True:
            for axis in (2, 3):
                terms.append((level * level.roll(1, axis)).mean().square())
            if level.shape[2] <= SMALLEST:
                break
            level = 2 * F.avg_pool2d(level, 2)  # of unit variance again
    return torch.stack(terms).sum()
