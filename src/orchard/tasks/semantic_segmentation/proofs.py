"""The losses of official code, for the proof: what stands in stored cases."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from orchard.tasks.semantic_segmentation.losses import cross_entropy, dice_loss


def summed_cross_entropy(model: nn.Module, images: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Of FCN's authors: the sum over the pixels, or their mean. A target of -1 is ignored."""
    total = F.cross_entropy(model(images), target, ignore_index=-1, reduction="sum")
    return {"sum": total, "mean": total / (target >= 0).sum()}


def cross_entropy_and_dice(model: nn.Module, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Of milesial/Pytorch-UNet, with the norms as in evaluation and as in training; their statistics stay."""
    found = {}
    for mode in ("eval", "train"):
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        logits = functional_call(model.train(mode == "train"), buffers, (images,))
        found[mode] = cross_entropy(logits, masks) + dice_loss(logits, masks)
    model.eval()
    return found
