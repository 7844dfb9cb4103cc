"""Super-resolution by an adversarial pair whose discriminator ends in a sigmoid (leftthomas/SRGAN)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from orchard.models.generation.pair import DISCRIMINATOR, GENERATOR
from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored

NETWORKS = {"netG.": GENERATOR, "netD.": DISCRIMINATOR}


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Enlarged images, and how real they and the images at high resolution seem, from 0 to 1."""
    enlarged = model(inputs["images"])
    judge: nn.Module = model.get_submodule("discriminator")
    return {"images": enlarged, "fake": judge(enlarged).sigmoid(), "real": judge(inputs["high"]).sigmoid()}


def stored(case: Stored) -> Stored:
    """Both networks under one kind of names, their gradients too."""
    return replace(case, state=_renamed(case.state, ""), tensors=_renamed(case.tensors, "."))


def _renamed(tensors: Mapping[str, Tensor], before: str) -> dict[str, Tensor]:
    found = dict(tensors)
    for theirs, ours in NETWORKS.items():
        found = {name.replace(before + theirs, before + ours): tensor for name, tensor in found.items()}
    return found


ADAPTER = Adapter(run=run, stored=stored)
