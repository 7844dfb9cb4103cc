"""Adversarial objectives: a generator and a discriminator learn from each other.

Goodfellow et al. 2014 (arXiv:1406.2661). In every step the discriminator learns to tell real images from generated
ones, once or several times, then the generator to make images that score higher. Losses, regularisers of slopes and of
weights and the number of updates are chosen apart (settings.py has the combinations of the papers); the pair may be any
with `generator`, `discriminator` and `sample_noise`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.errors import UsageError
from orchard.inference.generators import generators
from orchard.report.run_page import Curve
from orchard.tasks.unconditional_image_generation import codes, dictionaries, growing, styles
from orchard.tasks.unconditional_image_generation.classes import labels_of
from orchard.tasks.unconditional_image_generation.phase_losses import ACCURACY, PATH_LENGTH, PhaseLosses
from orchard.tasks.unconditional_image_generation.settings import AdversarialSettings, Options, Settings
from orchard.tasks.unconditional_image_generation.variations import (
    between,
    check_options,
    has_styles,
    noise_numbers,
    truncations,
)
from orchard.training.phases import Phase
from orchard.training.run import LOG_COLUMNS
from orchard.training.settings import ADAM, OptimizerSettings

NEEDS = "a generator and a discriminator"
DISCRIMINATOR = "discriminator"  # its optimizer
IN_WORDS = {  # settings that are said where they are set
    "leak": "leak {:g}",
    "margin": "margin {:g}",
    "smoothing": "real labels smoothed by {:g}",
    "feature_matching": "feature matching",
    "drift": "drift x {:g}",
    "path_length_weight": "path length x {:g}",
    "historical_averaging": "historical averaging x {:g}",
    "information": "information of codes x {:g}",
    "orthogonality": "orthogonal regularisation x {:g}",
    "weight_clip": "weights clipped at {:g}",
}


def suits(model: nn.Module) -> bool:
    """Does the model have both networks?"""
    return hasattr(model, "generator") and hasattr(model, "discriminator")


class Adversarial:
    """The phases of training a pair, which is `learner.model`."""

    def __init__(
        self, settings: AdversarialSettings, pair: nn.Module | None = None, growth: growing.Schedule | None = None
    ):
        """`pair` is needed for historical averaging and for dictionaries of features, `growth` for a pair that grows.

        UsageError for settings that do not go with the loss.
        """
        self.settings = s = settings
        self.losses = losses = PhaseLosses(settings, pair, growth)
        self.memory = losses.memory
        after = losses.clip_weights if s.weight_clip is not None else None
        judging = Phase(
            "discriminator", losses.discriminator, ("model.discriminator.",), DISCRIMINATOR,
            repeat=s.discriminator_steps, fresh_batch=s.discriminator_steps > 1, after=after,
        )  # fmt: skip
        regularising = Phase(
            "regulariser", losses.regularise, ("model.discriminator.",), DISCRIMINATOR, every=s.regulariser_every,
            after=after,
        )  # fmt: skip
        counted = losses.history.update if losses.history else None
        making = Phase("generator", losses.generator, ("model.generator.",), after=counted)
        straightening = Phase("path_length", losses.path_length, ("model.generator.",), every=s.path_length_every)
        lazy = [regularising] if losses.lazy else []
        self.phases: tuple[Phase, ...] = (judging, *lazy, making, *([straightening] if s.path_length_weight else []))
        self.curves = curves_of(losses)
        self.logged = tuple(curve.column for curve in self.curves if curve.column not in LOG_COLUMNS)

    def describe(self) -> str:
        s, losses = self.settings, self.losses
        parts = [f"{s.loss} loss"]
        if losses.regulariser is not None:
            parts.append(f"{s.regulariser} x {s.regulariser_weight:g}")
        parts += [words.format(value) for name, words in IN_WORDS.items() if (value := getattr(s, name))]
        if losses.dictionaries:
            parts.append(dictionaries.describe(losses.dictionaries))
        if s.discriminator_steps > 1:
            parts.append(f"{s.discriminator_steps} discriminator steps for one of the generator")
        if losses.growth is not None:
            parts.append(losses.growth.describe())
        return ", ".join(parts)

    def optimizer_settings(self, name: str, common: OptimizerSettings) -> OptimizerSettings:
        """The discriminator may have a learning rate of its own (Heusel et al. 2017, arXiv:1706.08500).

        With `lazy_correction`, n steps with one more update by a regulariser are to be as n + 1 updates would be in n
        steps: learning rate times n / (n + 1), Adam's betas to that power (StyleGAN2, appendix B).
        """
        s = self.settings
        if name == DISCRIMINATOR and s.discriminator_lr is not None:
            common = common.model_copy(update={"lr": s.discriminator_lr})
        every = s.path_length_every if s.path_length_weight else 0
        if name == DISCRIMINATOR:
            every = s.regulariser_every if self.losses.lazy else 0
        if not (s.lazy_correction and every):
            return common
        share = every / (every + 1)
        update = {"lr": common.lr * share}
        if common.name in ADAM:
            update |= {"momentum": common.momentum**share, "beta2": common.beta2**share}
        return common.model_copy(update=update)


def curves_of(losses: PhaseLosses) -> tuple[Curve, ...]:
    """What a report draws of an adversarial training."""
    s = losses.settings
    more = {
        Curve("Regulariser", "regulariser", "before its weight", falling=True): losses.regulariser is not None,
        Curve("Path length", PATH_LENGTH, "running mean"): s.path_length_weight,
        Curve("Orthogonality", "orthogonality", "before its weight", falling=True): s.orthogonality,
        Curve("Side", "side", "pixels"): losses.growth is not None,
        **dict.fromkeys(codes.CURVES, s.information),
        **dict.fromkeys(dictionaries.CURVES, losses.dictionaries),
    }
    return (
        Curve("Discriminator's loss", "loss", s.loss),
        Curve("Generator's loss", "generator_loss", "feature matching" if s.feature_matching else s.loss),
        Curve("Discriminator's accuracy", ACCURACY, "share on the right side of the middle", percent=True),
        Curve("Score of real images", "score_real", "score"),
        Curve("Score of generated images", "score_fake", "score"),
        Curve("Discriminator's gradient norm", "grad_norm", "before clipping", falling=True),
        Curve("Generator's gradient norm", "generator_grad_norm", "before clipping", falling=True),
        *(curve for curve, asked in more.items() if asked),
    )


def make_objective(settings: Settings, model: nn.Module) -> Adversarial:
    styles.check_settings(settings.adversarial, model)
    codes.check_settings(settings.adversarial, model)
    growth = None
    if growing.grows(model):
        sides = cast(Any, model).sides
        growth = growing.Schedule(sides, settings.adversarial.phase_images, settings.batch_size)
    return Adversarial(settings.adversarial, model, growth)


def measure(model: nn.Module, batches: Iterable[ImageBatch]) -> dict[str, float]:
    """What the codes of a pair that has such say of the classes of real images; nothing of other pairs."""
    return codes.measure(model, batches)


def steps(model: nn.Module, options: Options) -> int:
    """One: a generator's."""
    for name in ("steps", "sampler", "eta"):
        if getattr(options, name) is not None:
            raise UsageError(f"option '{name}' is for diffusion models; this model makes an image in one step")
    check_options(model, options)
    if options.codes is not None:
        codes.values_of(options.codes, cast(Any, model).codes)
    return 1


@torch.no_grad()
def generate(
    model: Any, seed: int, numbers: Sequence[int], options: Options, labels: Sequence[int] = ()
) -> Iterator[Tensor]:
    """Images (N, C, H, W) of a pair in evaluation mode; if it has classes, of those in `labels`, or of all in turn."""
    if growing.grows(model):
        model.read_growth()
    if has_styles(model):
        yield growing.full_size(styles.generate(model, seed, numbers, options), model)
        return
    noise = walked_noise(model, seed, numbers, options)
    if options.codes is not None:
        noise[:, -model.codes.width :] = codes.values_of(options.codes, model.codes)
    share = truncations(options, numbers)
    if share is not None:
        noise = torch.cat([model.truncate(row[None], one) for row, one in zip(noise, share, strict=True)])
    device = next(model.parameters()).device
    wanted = labels or labels_of(model, noise_numbers(options, numbers))
    images = model.generate(noise.to(device), *([torch.tensor(wanted, device=device)] if wanted else []))
    yield growing.full_size(images, model)


def walked_noise(model: Any, seed: int, numbers: Sequence[int], options: Options) -> Tensor:
    """The noise (N, D) of images: each its own, or in a walk between that of the first images of two seeds."""

    def drawn(one: int, some: Sequence[int]) -> Tensor:
        return torch.cat([model.sample_noise(1, generator) for generator in generators(one, some)])

    if options.walk is None:
        return drawn(seed, noise_numbers(options, numbers))
    shares = torch.tensor(numbers) / (options.count - 1)
    return between(drawn(seed, [0]), drawn(options.walk, [0]), shares, round_sphere=model.config.prior == "normal")
