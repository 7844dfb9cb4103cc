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
from orchard.nn.feature_quantizer import QuantizedFeatures
from orchard.report.run_page import Curve
from orchard.tasks.unconditional_image_generation import dictionaries, growing, styles
from orchard.tasks.unconditional_image_generation.calls import labels_for, noise_for, scores_for
from orchard.tasks.unconditional_image_generation.classes import labels_of
from orchard.tasks.unconditional_image_generation.discriminator_features import features_before_score
from orchard.tasks.unconditional_image_generation.losses import (
    LOSSES,
    drift_term,
    matched_features,
    raised_by_margin,
    smoothing_term,
    with_leak,
)
from orchard.tasks.unconditional_image_generation.path_length import SHRINK, path_lengths, path_penalty
from orchard.tasks.unconditional_image_generation.regularisers import REGULARISERS
from orchard.tasks.unconditional_image_generation.settings import AdversarialSettings, Options, Settings
from orchard.tasks.unconditional_image_generation.weight_regularisers import HistoricalAverage, orthogonality
from orchard.training.phases import Phase
from orchard.training.run import LOG_COLUMNS
from orchard.training.settings import ADAM, OptimizerSettings

NEEDS = "a generator and a discriminator"
DISCRIMINATOR = "discriminator"  # its optimizer
ACCURACY = "discriminator_accuracy"
PATH_LENGTH = "path_length"  # the learner's buffer of its running mean
IN_WORDS = {  # settings that are said where they are set
    "leak": "leak {:g}",
    "margin": "margin {:g}",
    "smoothing": "real labels smoothed by {:g}",
    "feature_matching": "feature matching",
    "drift": "drift x {:g}",
    "path_length_weight": "path length x {:g}",
    "historical_averaging": "historical averaging x {:g}",
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
        self.growth = growth
        self.loss = LOSSES[s.loss]
        if s.smoothing and not self.loss.labels:
            known = ", ".join(name for name, loss in LOSSES.items() if loss.labels)
            raise UsageError(f"setting 'adversarial.smoothing': {s.loss} has no label to move; it is for {known}")
        if s.leak:
            if s.loss != "loss-sensitive":
                raise UsageError(f"setting 'adversarial.leak' is the loss-sensitive loss's, not that of {s.loss}")
            self.loss = with_leak(self.loss, s.leak)
        self.regulariser = REGULARISERS.get(s.regulariser)
        self.lazy = s.regulariser_every > 1 and self.regulariser is not None
        after = self.clip_weights if s.weight_clip is not None else None
        judging = Phase(
            "discriminator", self.discriminator_loss, ("model.discriminator.",), DISCRIMINATOR,
            repeat=s.discriminator_steps, fresh_batch=s.discriminator_steps > 1, after=after,
        )  # fmt: skip
        regularising = Phase(
            "regulariser", self.regulariser_loss, ("model.discriminator.",), DISCRIMINATOR, every=s.regulariser_every,
            after=after,
        )  # fmt: skip
        self.history = HistoricalAverage(pair) if s.historical_averaging and pair is not None else None
        counted = self.history.update if self.history else None
        making = Phase("generator", self.generator_loss, ("model.generator.",), after=counted)
        straightening = Phase("path_length", self.path_length_loss, ("model.generator.",), every=s.path_length_every)
        self.dictionaries = (
            dictionaries.dictionaries_of(pair.get_submodule("discriminator")) if pair is not None else []
        )
        self.phases: tuple[Phase, ...] = (
            judging, *([regularising] if self.lazy else []), making, *([straightening] if s.path_length_weight else [])
        )  # fmt: skip
        # What the learner keeps for it, and with it the checkpoints.
        self.memory: dict[str, Tensor] = dict(self.history.memory) if self.history else {}
        if s.path_length_weight:
            self.memory[PATH_LENGTH] = torch.zeros(())
        self.curves: tuple[Curve, ...] = (
            Curve("Discriminator's loss", "loss", s.loss),
            Curve("Generator's loss", "generator_loss", "feature matching" if s.feature_matching else s.loss),
            Curve("Discriminator's accuracy", ACCURACY, "share on the right side of the middle", percent=True),
            Curve("Score of real images", "score_real", "score"),
            Curve("Score of generated images", "score_fake", "score"),
            Curve("Discriminator's gradient norm", "grad_norm", "before clipping", falling=True),
            Curve("Generator's gradient norm", "generator_grad_norm", "before clipping", falling=True),
        )
        if self.regulariser is not None:
            self.curves += (Curve("Regulariser", "regulariser", "before its weight", falling=True),)
        if s.path_length_weight:
            self.curves += (Curve("Path length", PATH_LENGTH, "running mean"),)
        if s.orthogonality:
            self.curves += (Curve("Orthogonality", "orthogonality", "before its weight", falling=True),)
        if growth is not None:
            self.curves += (Curve("Side", "side", "pixels"),)
        if self.dictionaries:
            self.curves += dictionaries.CURVES
        self.logged = tuple(curve.column for curve in self.curves if curve.column not in LOG_COLUMNS)

    def describe(self) -> str:
        s = self.settings
        parts = [f"{s.loss} loss"]
        if self.regulariser is not None:
            parts.append(f"{s.regulariser} x {s.regulariser_weight:g}")
        parts += [words.format(value) for name, words in IN_WORDS.items() if (value := getattr(s, name))]
        if self.dictionaries:
            parts.append(dictionaries.describe(self.dictionaries))
        if s.discriminator_steps > 1:
            parts.append(f"{s.discriminator_steps} discriminator steps for one of the generator")
        if self.growth is not None:
            parts.append(self.growth.describe())
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
            every = s.regulariser_every if self.lazy else 0
        if not (s.lazy_correction and every):
            return common
        share = every / (every + 1)
        update = {"lr": common.lr * share}
        if common.name in ADAM:
            update |= {"momentum": common.momentum**share, "beta2": common.beta2**share}
        return common.model_copy(update=update)

    def staged(self, learner: Any, batch: ImageBatch, step: int) -> ImageBatch:
        """The batch as the pair sees it: one that grows is brought to the level of the step, and images to its side."""
        return batch if self.growth is None else self.growth.stage(learner.model, batch, step)

    def make(self, pair: Any, batch: ImageBatch) -> Tensor:
        """As many generated images as the batch has real ones, with the styles of two noises where they are mixed."""
        noise = noise_for(pair, batch)
        if not self.settings.mixing:
            images: Tensor = pair(*noise)
            return images
        return cast(Tensor, pair.synthesise(styles.training_latents(pair, noise[0], self.settings.mixing)))

    def discriminator_loss(self, learner: Any, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The adversarial loss, with the regulariser unless that has a phase of its own; the generator is fixed."""
        batch = self.staged(learner, batch, step)
        pair, real = learner.model, batch.images
        with torch.no_grad():
            fake = self.make(pair, batch)
        heard: list[QuantizedFeatures] | None = [] if self.dictionaries else None
        score = scores_for(pair, batch, heard)
        # Real and generated images are apart: a batch norm would mix them.
        real_scores, fake_scores = score(real), score(fake)
        metrics = {
            "score_real": real_scores.detach().mean(),
            "score_fake": fake_scores.detach().mean(),
            ACCURACY: self.loss.accuracy(real_scores.detach(), fake_scores.detach()),
        }
        s = self.settings
        if self.growth is not None:
            metrics["side"] = torch.tensor(float(real.shape[2]))
        if s.margin:
            fake_scores = raised_by_margin(fake_scores, real, fake, s.margin)
        loss = self.loss.discriminator(real_scores, fake_scores)
        if s.smoothing:
            loss = loss + smoothing_term(real_scores, s.smoothing)
        if s.drift:
            loss = loss + s.drift * drift_term(real_scores)
        if heard:
            loss = loss + dictionaries.loss_of(heard)
            metrics |= dictionaries.metrics_of(pair.discriminator, heard)
        if self.regulariser is not None and not self.lazy:
            penalty = self.regulariser(scores_for(pair, batch), real, fake)
            loss = loss + s.regulariser_weight * penalty
            metrics["regulariser"] = penalty.detach()
        return self._with_history(loss, learner, "discriminator"), metrics

    def regulariser_loss(self, learner: Any, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The regulariser alone, weighted by the steps that pass between two of its updates."""
        assert self.regulariser is not None, "a training without a regulariser has no such phase"
        batch = self.staged(learner, batch, step)
        pair = learner.model
        with torch.no_grad():
            fake = self.make(pair, batch)
        penalty = self.regulariser(scores_for(pair, batch), batch.images, fake)
        weight = self.settings.regulariser_weight * self.settings.regulariser_every
        # The log's means are over all steps, also those without this phase.
        return weight * penalty, {"regulariser": penalty.detach() * self.settings.regulariser_every}

    def generator_loss(self, learner: Any, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of as many generated images as the batch has real ones.

        Of these only the labels are used, unless the features of both are matched.
        """
        batch = self.staged(learner, batch, step)
        pair, s = learner.model, self.settings
        metrics: dict[str, Tensor] = {}
        if s.path_length_weight:
            metrics[PATH_LENGTH] = learner.get_buffer(PATH_LENGTH).clone()
        fake = self.make(pair, batch)
        if s.feature_matching:
            labels = labels_for(pair, batch)
            with torch.no_grad():
                real_features = features_before_score(pair.discriminator, batch.images, *labels)
            loss = matched_features(real_features, features_before_score(pair.discriminator, fake, *labels))
        else:
            released = any(one.behaviour == "released" for one in self.dictionaries)
            heard: list[QuantizedFeatures] | None = [] if released else None
            loss = self.loss.generator(scores_for(pair, batch, heard)(fake))
            if heard:
                loss = loss + dictionaries.loss_of(heard)
        if s.orthogonality:
            penalty = orthogonality(pair.generator)
            loss = loss + s.orthogonality * penalty
            metrics["orthogonality"] = penalty.detach()
        return self._with_history(loss, learner, "generator"), metrics

    def path_length_loss(self, learner: Any, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The path-length regulariser of fewer images, weighted by the steps that pass between two of its updates."""
        batch = self.staged(learner, batch, step)
        pair, running = learner.model, learner.get_buffer(PATH_LENGTH)
        noise = pair.sample_noise(max(1, len(batch) // SHRINK), device=batch.images.device)
        latents = styles.training_latents(pair, noise, self.settings.mixing)
        direction = torch.randn(len(noise), *batch.images.shape[1:], device=batch.images.device)
        penalty, mean = path_penalty(path_lengths(pair.synthesise, latents, direction), running)
        running.copy_(mean)
        return self.settings.path_length_weight * self.settings.path_length_every * penalty, {}

    def _with_history(self, loss: Tensor, learner: Any, side: str) -> Tensor:
        """A network's loss with what it pays for being away from its mean."""
        if self.history is None:
            return loss
        return loss + self.settings.historical_averaging * self.history.distance(learner, side)

    @torch.no_grad()
    def clip_weights(self, learner: Any) -> None:
        """The discriminator's parameters cut to the largest magnitude (Arjovsky et al. 2017, algorithm 1, line 7)."""
        bound = self.settings.weight_clip
        assert bound is not None, "a training that clips no weights has no such call"
        for parameter in learner.model.discriminator.parameters():
            parameter.clamp_(-bound, bound)


def make_objective(settings: Settings, model: nn.Module) -> Adversarial:
    styles.check_settings(settings.adversarial, model)
    growth = None
    if growing.grows(model):
        sides = cast(Any, model).sides
        growth = growing.Schedule(sides, settings.adversarial.phase_images, settings.batch_size)
    return Adversarial(settings.adversarial, model, growth)


def measure(model: nn.Module, batches: Iterable[ImageBatch]) -> dict[str, float]:
    """Nothing: a pair says nothing of real images that could be compared between trainings."""
    return {}


def steps(model: nn.Module, options: Options) -> int:
    """One: a generator's."""
    for name in ("steps", "sampler", "eta"):
        if getattr(options, name) is not None:
            raise UsageError(f"option '{name}' is for diffusion models; this model makes an image in one step")
    styles.check_options(model, options)
    return 1


@torch.no_grad()
def generate(
    model: Any, seed: int, numbers: Sequence[int], options: Options, labels: Sequence[int] = ()
) -> Iterator[Tensor]:
    """Images (N, C, H, W) of a pair in evaluation mode; if it has classes, of those in `labels`, or of all in turn."""
    if growing.grows(model):
        model.read_growth()
    if styles.has_styles(model):
        yield growing.full_size(styles.generate(model, seed, numbers, options), model)
        return
    noise = torch.cat([model.sample_noise(1, generator) for generator in generators(seed, numbers)])
    device = next(model.parameters()).device
    if options.truncation is not None:
        noise = model.truncate(noise, options.truncation)
    wanted = labels or labels_of(model, numbers)
    images = model.generate(noise.to(device), *([torch.tensor(wanted, device=device)] if wanted else []))
    yield growing.full_size(images, model)
