"""What a discriminator's score is computed from, whatever the discriminator is."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from orchard.errors import UsageError


def features_before_score(discriminator: nn.Module, images: Tensor, *labels: Tensor) -> Tensor:
    """The features (B, D) of images (B, C, H, W), float32, with their gradient.

    They are what the first layer that gives one number for an image is given. UsageError where no layer does.
    """
    found: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if found or module is discriminator or not isinstance(output, Tensor) or not inputs:
            return
        if output.numel() == len(images) < inputs[0].numel():
            found.append(inputs[0])

    hooks = [module.register_forward_hook(look) for module in discriminator.modules()]
    try:
        discriminator(images, *labels)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise UsageError(
            f"setting 'adversarial.feature_matching': {type(discriminator).__name__} has no layer that gives one score "
            "for an image, whose input would be the features; leave it out"
        )
    return found[0].flatten(1).float()
