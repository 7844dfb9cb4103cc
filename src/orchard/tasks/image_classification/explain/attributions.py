"""Which parts of an image an answer comes from: Grad-CAM, integrated gradients, attention roll-out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from orchard.errors import OrchardError, UsageError

STEPS = (64, 128, 256, 512)  # of the integral; more are taken until it is complete
GAP = 0.01  # share of the difference of the logits that may be missing


def default_method(model: nn.Module, class_asked: bool) -> str:
    """Attention roll-out where there is attention that can be read and no class is asked about, else what fits."""
    if hasattr(model, "attention_weights") and not class_asked:
        return "attention-rollout"
    return "integrated-gradients" if _attends(model) else "grad-cam"


def require_fit(model: nn.Module, name: str, method: str) -> None:
    """UsageError for a method that does not suit the model."""
    if method == "attention-rollout" and not hasattr(model, "attention_weights"):
        raise UsageError(f"{name} has no attention weights to roll out; use {default_method(model, False)}")
    if method == "grad-cam" and _attends(model):
        better = default_method(model, False)
        raise UsageError(f"{name} is a transformer, without convolutional maps for Grad-CAM; use {better}")


def _attends(model: nn.Module) -> bool:
    return any("attention" in type(module).__name__.lower() for module in model.modules())


def grad_cam(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Grad-CAM of the logits `targets` (B,) on the last feature map, (B, h, w), none below 0.

    Selvaraju et al. 2016 (arXiv:1610.02391), equations 1 and 2: channels are weighted by the mean of their gradients.
    The map is the last output of a module that the logits depend on and that has more than one cell a side. Raises
    UsageError for a model without one.
    """
    maps: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim != 4 or not output.requires_grad:
            return
        if len(output) == len(images) and min(output.shape[2:]) > 1:  # some cut images into windows
            maps.append(output)

    hooks = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        with torch.enable_grad():
            logits = model(images.detach().clone().requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    score = logits.gather(1, targets[:, None]).sum()
    found = torch.autograd.grad(score, maps, allow_unused=True) if maps else ()
    for values, gradient in zip(reversed(maps), reversed(found), strict=True):
        if gradient is not None:
            return (gradient.mean((2, 3), keepdim=True) * values).sum(1).relu().detach()
    raise UsageError("the model has no feature map that its logits depend on; use integrated-gradients")


def integrated_gradients(
    model: nn.Module, images: Tensor, targets: Tensor, baselines: Tensor, gap: float = GAP
) -> tuple[Tensor, Tensor]:
    """How much each value of the images (B, C, H, W) adds to the logits `targets` (B,) beyond those of the baselines.

    Sundararajan et al. 2017 (arXiv:1703.01365), equation 1, by captum with the Gauss-Legendre rule. Returns the
    attributions, of the images' shape, and how far their sums (B,) are from the differences of the logits, which they
    would equal if the integral were exact (proposition 1). Steps are doubled until that is below `gap` of the
    difference. Raises OrchardError where captum is not installed.
    """
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise OrchardError("integrated gradients need captum: pip install 'orchard[explain]'") from None
    with torch.no_grad():
        difference = (model(images) - model(baselines)).gather(1, targets[:, None])[:, 0]
    for steps in STEPS:
        attributions: Tensor = IntegratedGradients(model).attribute(
            images, baselines, target=targets, n_steps=steps, internal_batch_size=max(32, len(images))
        )
        attributions = attributions.detach()
        missing = (attributions.flatten(1).sum(1) - difference).abs()
        if bool((missing <= gap * difference.abs()).all()):
            break
    return attributions, missing


@torch.no_grad()
def attention_rollout(model: Any, images: Tensor) -> Tensor:
    """How much of each patch comes to the pooled output through all blocks, (B, h, w).

    Abnar & Zuidema 2020 (arXiv:2005.00928), section 3: the mean over heads and the identity for the residual, half
    each, multiplied over the blocks. `model` has `attention_weights` and `over_patches`, as ViT has.
    """
    rolled: Tensor | None = None
    for weights in model.attention_weights(images):
        mean = weights.float().mean(1)
        step = (mean + torch.eye(mean.shape[-1], device=mean.device)) / 2
        rolled = step if rolled is None else step @ rolled
    assert rolled is not None, "a transformer has blocks"
    found: Tensor = model.over_patches(rolled[:, None])
    return found[:, 0]
