"""Both losses at once: classes, and the pixels of the images (Chen et al. 2020, section 2.2).

A model that generates images has `forward_with_generation(images)`, which gives the logits of classes and its
generative loss by one pass.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.errors import UsageError
from orchard.tasks.image_classification.settings import JointSettings
from orchard.training.settings import Resolved

LOSS = "generative_loss"  # the column of log.csv, in nats per pixel


def joint_settings(resolved: Resolved, model: nn.Module) -> JointSettings | None:
    """The weights of the losses of a model that has both, None for any other; UsageError where they are asked for of
    such."""
    settings: Any = resolved.settings
    if hasattr(model, "forward_with_generation"):
        return settings.joint  # type: ignore[no-any-return]
    for key, origin in resolved.origins.items():
        if key.startswith("joint.") and origin == "command":
            raise UsageError(f"setting '{key}': {settings.model} has no generative loss; leave it out")
    return None


def joint_losses(model: Any, colours: Tensor, labels: Tensor, masked: Tensor | None = None) -> dict[str, Tensor]:
    """The losses of a model of pixels for images as colours (B, T) with labels (B,), and their sum, in nats."""
    logits, generative = model.of_colours(colours, masked)
    classification = F.cross_entropy(logits, labels)
    return {"classification": classification, "generative": generative, "joint": classification + generative}
