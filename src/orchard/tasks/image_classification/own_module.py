"""A person's own module as a classifier: tried before it is trained."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from orchard.data.check import size_to_show
from orchard.data.contracts import ImageData
from orchard.errors import UsageError, first_line
from orchard.inference.cost import multiply_adds
from orchard.models.foreign import ForeignConfig, own_classifier
from orchard.tasks.image_classification.settings import Settings


def start_module(module: nn.Module, settings: Settings, data: ImageData) -> nn.Module:
    """A copy of a person's own module, tried on two images: it starts from the weights that the module has.

    Raises UsageError for a module that cannot be copied, or gives no logits for the classes of the data.
    """
    name, size = type(module).__name__, settings.image_size or size_to_show(data)
    wanted = {"num_classes": len(data.classes), "in_channels": data.channels, "image_size": size}
    strange = [key for key in settings.architecture if key not in wanted]
    if strange:
        raise UsageError(f"architecture.{strange[0]}: {name} is a module of your own, built already; leave it out")
    config = ForeignConfig(**{**wanted, **settings.architecture})
    shape = (2, config.in_channels, *config.image_hw)
    try:
        model = own_classifier(copy.deepcopy(module), config).eval()
        with torch.no_grad():
            logits = model(torch.zeros(shape, device=next(model.parameters()).device))
        multiply_adds(model, shape)
    except UsageError:
        raise
    except Exception as error:  # whatever it is, it is the module's
        raise UsageError(
            f"{name} fails on images {shape}: {first_line(error)}; image_size and architecture.in_channels say what it "
            "is given"
        ) from error
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (2, config.num_classes):
        raise UsageError(f"{name} gives {found} for two images; expected logits (2, {config.num_classes})")
    return model
