"""The discriminator of FQ-GAN alone: scores and losses in evaluation and in training.

The generator, which the golden case is without, is a small one of ours with fresh weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from orchard.models import create_model
from orchard.models.generation.pair import DISCRIMINATOR, GENERATOR
from orchard.nn.feature_quantizer import QuantizedFeatures
from orchard.weights.adapters import Adapter
from orchard.weights.adapters.conditional_pair import training
from orchard.weights.golden import Stored
from orchard.weights.official import export_official

SMALL = {"image_size": 32, "num_classes": 10, "noise": 4, "class_width": 4, "generator_widths": (4, 4),
         "generator_attention": ()}  # fmt: skip
GRADIENTS = "out.train.grad."

Judged = tuple[Tensor, Tensor, Tensor]  # scores (B,), losses of all dictionaries (B,), perplexity of the last one


def judge(discriminator: nn.Module, *inputs: Tensor) -> Judged:
    """What a discriminator and its dictionaries say of images and their labels."""
    heard: list[QuantizedFeatures] = []
    scores = discriminator(*inputs, heard)
    return scores, torch.stack([found.loss for found in heard]).sum(0), heard[-1].perplexity


def step(
    pair: Any, fake: Tensor, fake_labels: Tensor, real: Tensor, real_labels: Tensor
) -> tuple[Judged, Judged, dict[str, Tensor]]:
    """Of a discriminator in training: generated and real images in one batch, then the generated ones once more as the
    generator's step has them; and what the first of them made of the buffers, which change in a copy only."""
    discriminator = pair.discriminator
    buffers = {name: buffer.clone() for name, buffer in discriminator.named_buffers()}

    def call(*inputs: Tensor) -> Judged:
        heard: list[QuantizedFeatures] = []
        with training(discriminator):
            scores = functional_call(discriminator, buffers, (*inputs, heard))
        return scores, torch.stack([found.loss for found in heard]).sum(0), heard[-1].perplexity

    both = call(torch.cat([fake, real]), torch.cat([fake_labels, real_labels]))
    after = {name: buffer.clone() for name, buffer in buffers.items()}
    return both, call(fake, fake_labels), after


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scores and losses of the dictionaries."""
    pair: Any = model
    fake, fake_labels, real, real_labels = (inputs[key] for key in ("fake", "fake_labels", "real", "real_labels"))
    scores, losses, perplexity = judge(pair.discriminator, real, real_labels)
    both, forged, _ = step(pair, fake, fake_labels, real, real_labels)
    fake_scores, real_scores = torch.split(both[0], [len(fake), len(real)])
    return {
        "scores": scores[:, None],
        "losses": losses[:, None],
        "perplexity": perplexity,
        "training_scores_fake": fake_scores[:, None],
        "training_scores_real": real_scores[:, None],
        "training_losses": both[1][:, None],
        "training_perplexity": both[2],
        "scores_forged": forged[0][:, None],
        "losses_forged": forged[1][:, None],
    }


def stored(case: Stored) -> Stored:
    """Weights and gradients under the names that files of both networks have, and a generator."""
    own = export_official(create_model("fq_biggan128", **SMALL), "fq-gan")
    state = {name: tensor for name, tensor in own.items() if name.startswith(GENERATOR)}
    state |= {DISCRIMINATOR + name: tensor for name, tensor in case.state.items()}
    tensors = {
        GRADIENTS + DISCRIMINATOR + name.removeprefix(GRADIENTS) if name.startswith(GRADIENTS) else name: tensor
        for name, tensor in case.tensors.items()
    }
    return replace(case, state=state, tensors=tensors)


ADAPTER = Adapter(run=run, stored=stored)
