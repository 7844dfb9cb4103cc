"""Official generative models, whose two networks may lie in files of their own."""

from __future__ import annotations

import torch

from orchard.errors import UsageError
from orchard.models import create_model, landmark_of
from orchard.models.generation.pair import DISCRIMINATOR, GENERATOR
from orchard.tasks.importing import Checkpoint, Imported
from orchard.tasks.unconditional_image_generation import adversarial
from orchard.weights.foreign import read_checkpoint
from orchard.weights.official import export_official
from orchard.weights.portable import save_portable

FRESH = (
    "its discriminator is a fresh one: it makes images, but training on would start the discriminator anew; "
    "--files names the file of the official one"
)


def complete(wanted: Checkpoint) -> Imported:
    """Write a model's folder from one file or, of an adversarial pair, from its generator's and its discriminator's.

    The latter may be left out. Raises UsageError for files that have no place in the model.
    """
    with torch.device("meta"):
        pair = adversarial.suits(create_model(wanted.name, **wanted.overrides))
    if wanted.vocabulary or wanted.tokenizer or len(wanted.others) > (1 if pair else 0):
        raise UsageError(
            f"{wanted.name} takes one file; an adversarial pair its generator's, and --files its discriminator's"
        )
    tensors, remarks = dict(wanted.tensors), tuple[str, ...]()
    if pair and not any(name.startswith((GENERATOR, DISCRIMINATOR)) for name in tensors):
        tensors = {f"{GENERATOR}{name}": tensor for name, tensor in tensors.items()}
        if wanted.others:
            tensors |= {f"{DISCRIMINATOR}{name}": tensor for name, tensor in read_checkpoint(wanted.others[0]).items()}
        else:
            torch.manual_seed(0)
            source = wanted.source or next(iter(landmark_of(wanted.name).names), "")
            fresh = export_official(create_model(wanted.name, **wanted.overrides), source)
            tensors |= {name: tensor for name, tensor in fresh.items() if name.startswith(DISCRIMINATOR)}
            remarks = (FRESH,)
    official = wanted.read(tensors)
    save_portable(wanted.out, official.model, official.about)
    return Imported(official, remarks=remarks)
