"""One batch, learned by heart through the loss of a model's own task."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from battery import example
from torch import Tensor, nn

from orchard.data.batches import ImageBatch, TokenBatch
from orchard.models import create_model
from orchard.tasks.image_tokenization.objective import ImageTokenization, TokenizationSettings, tokenizer_training
from orchard.tasks.text_generation.objective import TextGeneration
from orchard.tasks.text_to_image.objective import CodeBatch, TextToImage
from orchard.tasks.unconditional_image_generation.losses import LOSSES as ADVERSARIAL
from orchard.tasks.zero_shot_image_classification.objective import ImageText, PairBatch

STEPS = 300
# The loss at which a batch counts as learned. Knowing nothing costs log 4 = 1.39 for four classes or four pairs, and
# 3.4 to 5.6 for tokens and codes. Of pictures that are drawn again, what is left of the error of a picture in one grey.
MEMORISED = {
    "image-classification": 0.5,
    "zero-shot-image-classification": 0.5,
    "text-generation": 0.5,
    "text-to-image": 0.5,
    "image-tokenization": 0.5,
    "unconditional-image-generation": 0.5,
}
SHORTER: dict[str, dict[str, Any]] = {  # sequences, so that a step takes a hundredth of a second
    "text-generation": {"context": 12},
    "text-to-image": {"text_length": 4, "image_length": 9, "dropout": 0.0},
}


def memorise(name: str, overrides: dict[str, Any], task: str) -> list[float]:
    """The losses of a model that is shown the same batch until it knows it, or `STEPS` times."""
    torch.manual_seed(0)
    model = create_model(name, **overrides | SHORTER.get(task, {})).train()
    learner, loss_of = LOSSES[task](name, model)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3 if "image-class" in task else 3e-3)
    losses: list[float] = []
    while len(losses) < STEPS and (not losses or losses[-1] > MEMORISED[task]):
        loss, measured = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(measured.item())
    return losses


Loss = Callable[[], tuple[Tensor, Tensor]]  # what is learned from, and what is measured


def classes(name: str, model: Any) -> tuple[nn.Module, Loss]:
    inputs = example(name, model.config, 8)
    labels = torch.arange(8) % min(model.config.num_classes, 4)

    def loss() -> tuple[Tensor, Tensor]:
        found = F.cross_entropy(model(**inputs), labels)
        return found, found

    return model, loss


def pairs(name: str, model: Any) -> tuple[nn.Module, Loss]:
    task, batch = ImageText(), PairBatch(**example(name, model.config, 4), indices=torch.arange(4))

    def loss() -> tuple[Tensor, Tensor]:
        found, _ = task.loss(model, batch)
        return found, found

    return model, loss


def text(name: str, model: Any) -> tuple[nn.Module, Loss]:
    tokens = torch.randint(model.config.vocabulary, (2, model.config.context + 1))
    tokens[:, 0] = torch.arange(2)  # two texts that begin alike cannot be told apart
    task, batch = TextGeneration(), TokenBatch(tokens, torch.ones(2, model.config.context), torch.arange(2))

    def loss() -> tuple[Tensor, Tensor]:
        found, _ = task.loss(model, batch)
        return found, found

    return model, loss


def paintings(name: str, model: Any) -> tuple[nn.Module, Loss]:
    c = model.config
    words = torch.randint(1, c.text_vocabulary, (2, c.text_length))
    batch = CodeBatch(words, torch.randint(c.codes, (2, c.image_length)), torch.arange(2))
    task = TextToImage()

    def loss() -> tuple[Tensor, Tensor]:
        found, parts = task.loss(model, batch)
        return found, parts.image

    return model, loss


def drawings(name: str, model: Any) -> tuple[nn.Module, Loss]:
    """Pictures of two by two fields; measured is how wrong they are drawn from codes alone, over how wrong grey is."""
    c, (low, high) = model.config, model.value_range
    fields = low + (high - low) * (torch.rand(4, c.in_channels, 2, 2) > 0.5).float() * 0.8 + 0.1 * (high - low)
    images = F.interpolate(fields, (c.image_size, c.image_size))
    settings = TokenizationSettings(discriminator_weight=0.0, perceptual_weight=0.0)
    task, learner = ImageTokenization(settings), tokenizer_training(model, settings).train()
    batch = ImageBatch(images, torch.zeros(4, dtype=torch.int64), torch.arange(4))
    grey = (images - images.mean()).abs().mean()

    def loss() -> tuple[Tensor, Tensor]:
        found, _ = task.phases[0].loss(learner, batch, 0)
        with torch.no_grad():
            error = (learner.eval()(images).images - images).abs().mean()
        learner.train()
        return found, error / grey

    return learner, loss


def forgeries(name: str, model: Any) -> tuple[nn.Module, Loss]:
    """Each side wins while the other stands still, on one batch of images and one of noise.

    The generator has to please the discriminator as it started, the discriminator to tell the generator's first images
    from random ones; measured is the worse of the two non-saturating losses, per image.
    """
    c, loss = model.config, ADVERSARIAL["non-saturating"]
    real = torch.rand(4, c.in_channels, c.image_size, c.image_size) * 2 - 1
    noise = model.sample_noise(4)
    first, fake = copy.deepcopy(model.discriminator).requires_grad_(False), model.generate(noise)

    def both() -> tuple[Tensor, Tensor]:
        judged = loss.discriminator(model.discriminator(real), model.discriminator(fake)) / 2
        forged = loss.generator(first(model(noise)))
        return judged + forged, torch.maximum(judged, forged)

    return model, both


LOSSES: dict[str, Callable[[str, Any], tuple[nn.Module, Loss]]] = {
    "image-classification": classes,
    "zero-shot-image-classification": pairs,
    "text-generation": text,
    "text-to-image": paintings,
    "image-tokenization": drawings,
    "unconditional-image-generation": forgeries,
}
