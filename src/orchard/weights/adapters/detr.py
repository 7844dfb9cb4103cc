"""DETR's references: official images are stored one by one or by a seed; transformers' mask is true on what is real."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored


def padded(stored: Stored) -> Stored:
    """The case with its images as one batch, `in.images` (B, 3, H, W), and its padding mask, `in.padding_mask`."""
    if "in.image0" in stored.tensors:
        images = [tensor for name, tensor in sorted(stored.tensors.items()) if name.startswith("in.image")]
    else:
        made = stored.meta["constructor"]
        sources = [np.random.RandomState(made["input_seed"] + n) for n in range(len(made["image_sizes"]))]
        sizes = [(3, *size) for size in made["image_sizes"]]
        drawn = [source.standard_normal(size) for source, size in zip(sources, sizes, strict=True)]
        images = [torch.from_numpy(image).float() for image in drawn]
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    batch = torch.zeros(len(images), 3, height, width)
    mask = torch.ones(len(images), height, width, dtype=torch.bool)
    for n, image in enumerate(images):
        batch[n, :, : image.shape[1], : image.shape[2]] = image
        mask[n, : image.shape[1], : image.shape[2]] = False
    return dataclasses.replace(stored, tensors={**stored.tensors, "in.images": batch, "in.padding_mask": mask})


def call(module: nn.Module, inputs: dict[str, Tensor]) -> Any:
    return module(pixel_values=inputs["images"], pixel_mask=(~inputs["padding_mask"]).long())


ADAPTER = Adapter(call=call, stored=padded)
