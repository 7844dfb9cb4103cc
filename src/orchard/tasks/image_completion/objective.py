"""What colour is the next pixel, or one that is masked?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.data.counter_rng import uniforms
from orchard.data.palette import Palette
from orchard.nn import pixels
from orchard.nn.pixels import image_means
from orchard.training.phases import one_phase

SEED = 0  # of the pixels that are masked in evaluation: the same in every one


def pixel_nats(model: nn.Module, tokens: Tensor, colours: Tensor) -> tuple[Tensor, Tensor]:
    """-log p of all pixels of `colours` (B, T) by a model that reads `tokens` (B, T), and whether it is the likeliest
    of colours; both (B, T)."""
    logits = model(tokens).float()
    return pixels.pixel_nats(logits, colours), logits.argmax(-1) == colours


def hide(model: Any, colours: Tensor, masked: Tensor) -> Tensor:
    """Tokens (B, T) that say nothing of the masked pixels."""
    return colours.masked_fill(masked, model.config.special)


def autoregressive_loss(model: Any, colours: Tensor) -> Tensor:
    """Mean -log p of the next pixel, in nats (Chen et al. 2020, section 2.1)."""
    return image_means(pixel_nats(model, model.as_input(colours), colours)[0], None).mean()


def bert_loss(model: Any, colours: Tensor, masked: Tensor) -> Tensor:
    """Mean -log p of each image's masked pixels, in nats (section 2.1)."""
    return image_means(pixel_nats(model, hide(model, colours, masked), colours)[0], masked).mean()


class PixelObjective:
    """One loss of `model`, which gives logits of colours: that its `config.causal` says."""

    logged = ("bits_per_pixel",)

    def __init__(self, model: Any, palette: Palette, mask_share: float):
        self.model, self.palette, self.mask_share = model, palette, mask_share
        self.phases = one_phase(self.loss, through_forward=True)

    def loss(self, model: nn.Module, batch: ImageBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """In nats per pixel; `model` is the objective's own, ready for the devices."""
        colours = self.palette.quantize(batch.images)
        if self.model.config.causal:
            tokens, masked = self.model.as_input(colours), None
        else:
            masked = torch.rand(colours.shape, device=colours.device) < self.mask_share
            tokens = hide(self.model, colours, masked)
        loss = image_means(pixel_nats(model, tokens, colours)[0], masked).mean()
        return loss, {"bits_per_pixel": loss.detach() / math.log(2)}

    def asked(self, colours: Tensor, indices: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """The tokens of an evaluation and the pixels that are masked; record n of a split always has the same."""
        if self.model.config.causal:
            return self.model.as_input(colours), None
        places = indices[:, None] * colours.shape[1] + np.arange(colours.shape[1])
        draws = uniforms(SEED, 0, places.ravel(), 1).reshape(places.shape)
        masked = torch.from_numpy(draws < self.mask_share).to(colours.device)
        return hide(self.model, colours, masked), masked


@torch.no_grad()
def measure(objective: PixelObjective, model: nn.Module, batches: Iterable[ImageBatch], known: Tensor) -> Tensor:
    """Sums over images: bits per pixel, accuracy, bits by the `known` probabilities of colours (K,), and their count;
    (4,) float64."""
    total = torch.zeros(4, dtype=torch.float64)
    for batch in batches:
        colours = objective.palette.quantize(batch.images)
        tokens, masked = objective.asked(colours, batch.indices.numpy())
        nats, right = pixel_nats(model, tokens, colours)
        unigram = -known.log()[colours]
        sums = [image_means(one.double(), masked).sum().cpu() for one in (nats, right, unigram)]
        total += torch.stack([sums[0] / math.log(2), sums[1], sums[2] / math.log(2), torch.tensor(float(len(batch)))])
    return total


def compute_metrics(total: Tensor) -> dict[str, float]:
    """`bits_per_pixel` and `accuracy` of the pixels that were asked for, means over images; and the bits per pixel of a
    model that knows how often each colour comes and nothing else."""
    bits, right, unigram, count = total.tolist()
    return {"bits_per_pixel": bits / count, "accuracy": right / count, "unigram_bits_per_pixel": unigram / count}
