"""Of each direction, the generator wins against the discriminator as it started, and that learns to tell its first
images from random ones; measured is the worst of the non-saturating losses, per image."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from by_task import Hooks, Loss, example


def sides(model: Any, inputs: dict[str, Tensor]) -> list[tuple[Any, Any, Tensor, Tensor]]:
    """For each direction the generator, its discriminator, what is given, and what the discriminator sees beside what
    is made."""
    if hasattr(model, "generators"):
        return [
            (model.generators[way], model.discriminators[way[-1]], given, given[:, :0])
            for way, given in zip(model.directions, inputs.values(), strict=True)
        ]
    return [(model.generator, model.discriminator, inputs["images"], inputs["images"])]


def outputs(model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What every generator makes, and the scores of that."""
    found = {}
    for n, (generator, judge, given, seen) in enumerate(sides(model, inputs)):
        found[f"images.{n}"] = generator(given)
        found[f"scores.{n}"] = judge(torch.cat([seen, found[f"images.{n}"]], 1))
    return found


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    from orchard.tasks.image_to_image.losses import LOSSES

    inputs, adversarial = example(name, model.config, 2), LOSSES["non-saturating"]
    players = []
    for generator, judge, given, seen in sides(model, inputs):
        with torch.no_grad():
            made = generator(given)
        real = torch.rand_like(made) * 2 - 1
        first = copy.deepcopy(judge).requires_grad_(False)
        players.append((generator, judge, first, given, seen, made, real))

    def loss() -> tuple[Tensor, Tensor]:
        losses = []
        for generator, judge, first, given, seen, made, real in players:
            scores = (judge(torch.cat([seen, x], 1)) for x in (real, made))
            losses += [adversarial.discriminator(*scores)]
            losses += [adversarial.generator(first(torch.cat([seen, generator(given)], 1)))]
        return torch.stack(losses).sum(), torch.stack(losses).max().detach()

    return model, loss


def pairs(folder: Path) -> tuple[str, dict[str, Any]]:
    from PIL import Image

    for n in range(12):
        fields = Image.fromarray(np.random.default_rng(n).integers(0, 256, (5, 5, 3), np.uint8)).resize((72, 72))
        for side, image in (("A", fields), ("B", Image.eval(fields, lambda level: 255 - level))):
            (folder / f"train{side}").mkdir(exist_ok=True)
            image.save(folder / f"train{side}/{n}.png")
    return str(folder), {"batch_size": 1, "data.workers": 0, "data.validation_fraction": 0.3}


HOOKS = Hooks(learn, most_macs=800e6, outputs=outputs, data=pairs)
