"""Of each direction, the generator wins against the discriminator as it started, and that learns to tell its first
images from random ones; measured is the worst of the non-saturating losses, per image. As a fresh
discriminator under a spectral norm gives all images nearly the same score, the generator's scores are counted from the
mean of its first images and random ones, in units of their standard deviation."""

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
        found[f"scores.{n}"] = scores_of(judge, torch.cat([seen, found[f"images.{n}"]], 1))
    return found


def scores_of(judge: Any, images: Tensor) -> Tensor:
    """Those of a discriminator, or of all that a side has, with the logits of their classifiers; one row an image."""
    said = judge(images)
    if isinstance(said, Tensor):
        return said.flatten(1)
    return torch.cat([part.flatten(1) for one in said for part in (one.scores, one.logits)], dim=1)


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    from orchard.tasks.image_to_image.losses import LOSSES

    inputs, adversarial = example(name, model.config, 2), LOSSES["non-saturating"]
    players = []
    for generator, judge, given, seen in sides(model, inputs):
        with torch.no_grad():
            made = generator(given)
        real = torch.rand_like(made) * 2 - 1
        first = copy.deepcopy(judge).eval().requires_grad_(False)
        said = torch.cat([scores_of(first, torch.cat([seen, x], 1)) for x in (real, made)])
        players.append((generator, judge, first, said.mean(0), said.std(0), given, seen, made, real))

    def loss() -> tuple[Tensor, Tensor]:
        losses = []
        for generator, judge, first, middle, unit, given, seen, made, real in players:
            scores = (scores_of(judge, torch.cat([seen, x], 1)) for x in (real, made))
            losses += [adversarial.discriminator(*scores)]
            won = (scores_of(first, torch.cat([seen, generator(given)], 1)) - middle) / unit
            losses += [adversarial.generator(won)]
        return torch.stack(losses).sum(), torch.stack(losses).max().detach()

    return model, loss


def pairs(folder: Path) -> tuple[str, dict[str, Any]]:
    from PIL import Image

    for n in range(12):
        fields = Image.fromarray(np.random.default_rng(n).integers(0, 256, (5, 5, 3), np.uint8)).resize((72, 72))
        for side, image in (("A", fields), ("B", Image.eval(fields, lambda level: 255 - level))):
            (folder / f"train{side}").mkdir(exist_ok=True)
            image.save(folder / f"train{side}/{n}.png")
    return str(folder), {"batch_size": 2, "data.workers": 0, "data.validation_fraction": 0.3}


HOOKS = Hooks(learn, most_macs=800e6, outputs=outputs, data=pairs)
