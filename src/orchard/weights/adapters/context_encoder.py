"""Context encoders of BoyuanJiang's port, whose discriminator gives a probability; images are stored in bytes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from orchard.models.translation.context_encoder import ContextEncoder
from orchard.weights.adapters import Adapter
from orchard.weights.golden import Stored

# Behind a norm over the two images of a batch, which makes plus and minus one of any two values, the encoder's gradient
# is what rounding leaves.
ROUNDING = ("out.train_grad_G.main.0.weight",)


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    assert isinstance(model, ContextEncoder)
    images, known = inputs["images"], inputs["known"]
    blank = model.blanked(images, known)
    drawn = model(blank)
    scores = {
        name: model.discriminator(x).sigmoid().flatten(1) for name, x in (("fake", drawn), ("real", model.part(images)))
    }
    return {"drawn": drawn, "blank": blank[:1, :, ::4, ::4], **{f"score_{name}": one for name, one in scores.items()}}


def stored(case: Stored) -> Stored:
    """Images and what of them is known, and gradients under the names of the whole pair."""
    images = case.given("image_u8").float() / 127.5 - 1
    size, overlap = images.shape[-1], case.meta["args"]["_overlapPred"]
    known = torch.ones(len(images), 1, size, size)
    known[:, :, size // 4 + overlap : 3 * size // 4 - overlap, size // 4 + overlap : 3 * size // 4 - overlap] = 0
    names = {"out.train_grad_D.": "out.grad_D.netD.", "out.train_grad_G.": "out.grad_G.netG."}
    kept = {key: tensor for key, tensor in case.tensors.items() if key not in ROUNDING}
    renamed = {
        new + key.removeprefix(old): tensor
        for key, tensor in kept.items() for old, new in names.items() if key.startswith(old)
    }  # fmt: skip
    discriminator = case.computed("train_errD_real") + case.computed("train_errD_fake")
    more = {"in.images": images, "in.known": known, "out.train_errD": discriminator}
    return replace(case, tensors={**case.tensors, **renamed, **more})


ADAPTER = Adapter(run=run, stored=stored)
