"""What learns from pictures alone learns two by heart. Of others the generator of each direction wins against the
discriminator as it started, and that learns to tell its first images from random ones; measured is the worst of the
non-saturating losses, per image. As a fresh discriminator under a spectral norm gives all images nearly the same score,
the generator's scores are counted from the mean of its first images and random ones, in units of their standard
deviation."""

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
    images = inputs["images"]
    # Of what fills holes the discriminator sees what was drawn alone.
    seen = model.part(images)[:, :0] if hasattr(model, "part") else images
    return [(model.generator, model.discriminator, images, seen)]


def outputs(model: Any, inputs: dict[str, Tensor]) -> Any:
    """What every generator makes, and the scores of that."""
    if not hasattr(model, "discriminator") and not hasattr(model, "discriminators"):
        return model(**inputs)
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

    if hasattr(model, "classes"):
        return model, colours(name, model)
    if not hasattr(model, "discriminator") and not hasattr(model, "discriminators"):
        return model, by_heart(name, model)
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


def by_heart(name: str, model: Any) -> Loss:
    """The squared error of smooth images, over their variance."""
    inputs = example(name, model.config, 2)
    truth = nn.functional.interpolate(torch.randn(2, 3, 4, 4), inputs["images"].shape[2:], mode="bicubic")

    def loss() -> tuple[Tensor, Tensor]:
        error = (model(truth, inputs["known"]).images - truth).square().mean() / truth.var()
        return error, error.detach()

    return loss


def colours(name: str, model: Any) -> Loss:
    """The cross-entropy of classes of colour, over that of an answer that is always the same."""
    inputs = example(name, model.config, 2)
    size = [side // 4 for side in inputs["lightness"].shape[2:]]
    truth = (
        torch.randint(len(model.bins), (2, size[0] // 8, size[1] // 8)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    )
    always = torch.bincount(truth.flatten()).float().div(truth.numel())
    most = -(always * always.clamp(min=1e-9).log()).sum()

    def loss() -> tuple[Tensor, Tensor]:
        error = nn.functional.cross_entropy(model(**inputs).logits, truth) / most
        return error, error.detach()

    return loss


def pairs(folder: Path) -> tuple[str, dict[str, Any]]:
    from PIL import Image

    for n in range(12):
        fields = Image.fromarray(np.random.default_rng(n).integers(0, 256, (5, 5, 3), np.uint8)).resize((72, 72))
        for side, image in (("A", fields), ("B", Image.eval(fields, lambda level: 255 - level))):
            (folder / f"train{side}").mkdir(exist_ok=True)
            image.save(folder / f"train{side}/{n}.png")
    return str(folder), {"batch_size": 2, "data.workers": 0, "data.validation_fraction": 0.3}


HOOKS = Hooks(learn, most_macs=800e6, outputs=outputs, data=pairs)
