"""Adversarial pairs of ajbrock/BigGAN-PyTorch: what both networks give, in evaluation and in training.

Official code keeps each network in a file of its own; the golden cases have them as `G.` and `D.`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from orchard.models.generation.pair import DISCRIMINATOR, GENERATOR
from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored

NETWORKS = {"G.": GENERATOR, "D.": DISCRIMINATOR}
GRADIENTS = {"out.train.dgrad.": DISCRIMINATOR, "out.train.ggrad.": GENERATOR}


class Training:
    """A network in training mode, called as often as one likes, whose buffers change in a copy only."""

    def __init__(self, network: nn.Module):
        self.network = network
        self.buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}

    def __call__(self, *inputs: Tensor) -> Tensor:
        with training(self.network):
            result: Tensor = functional_call(self.network, self.buffers, inputs)
        return result


@contextmanager
def training(network: nn.Module) -> Iterator[None]:
    was_training = network.training
    network.train()
    try:
        yield
    finally:
        network.train(was_training)


def step(
    pair: Any, noise: Tensor, labels: Tensor, images: Tensor, image_labels: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of one step in training: generated images, scores of them and of real images, both in one batch, and then scores
    of the same noise's images when both networks are called once more."""
    generator, discriminator = Training(pair.generator), Training(pair.discriminator)
    fake = generator(noise, labels)
    scores = discriminator(torch.cat([fake.detach(), images]), torch.cat([labels, image_labels]))
    fake_scores, real_scores = torch.split(scores, [len(noise), len(images)])
    return fake, fake_scores, real_scores, discriminator(generator(noise, labels), labels)


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Images and scores in evaluation, and those of a step of training."""
    pair: Any = model
    noise, labels, images, image_labels = (inputs[key] for key in ("noise", "labels", "images", "image_labels"))
    made = pair(noise, labels)
    in_training, fake_scores, real_scores, _ = step(pair, noise, labels, images, image_labels)
    return {
        "images": made,
        "scores_real": pair.discriminator(images, image_labels)[:, None],
        "scores_fake": pair.discriminator(made, labels)[:, None],
        "training_images": in_training,
        "training_scores_real": real_scores[:, None],
        "training_scores_fake": fake_scores[:, None],
    }


def stored(case: Stored) -> Stored:
    """Weights and gradients of both networks under the names that files of both have."""

    def renamed(tensors: Any, prefixes: dict[str, str], keep: bool) -> dict[str, Tensor]:
        found = {}
        for name, tensor in tensors.items():
            before = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
            after = (before if keep else "") + prefixes.get(before, "")
            found[after + name.removeprefix(before)] = tensor
        return found

    return replace(
        case, state=renamed(case.state, NETWORKS, keep=False), tensors=renamed(case.tensors, GRADIENTS, keep=True)
    )


ADAPTER = Adapter(run=run, stored=stored)
