"""What each phase of an adversarial training minimises on a batch.

A `PhaseLosses` knows the settings and what they switch on. Its methods are losses of phases (`training/phases.py`): of
a learner whose `model` is the pair, a batch and the number of the step.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.errors import UsageError
from orchard.nn.feature_quantizer import QuantizedFeatures
from orchard.tasks.unconditional_image_generation import codes, dictionaries, growing, styles
from orchard.tasks.unconditional_image_generation.calls import labels_for, noise_for, scores_for
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
from orchard.tasks.unconditional_image_generation.settings import AdversarialSettings
from orchard.tasks.unconditional_image_generation.weight_regularisers import HistoricalAverage, orthogonality

ACCURACY = "discriminator_accuracy"
PATH_LENGTH = "path_length"  # the learner's buffer of its running mean


class PhaseLosses:
    """The losses of training a pair; `memory` is what the learner keeps for them, and with it the checkpoints."""

    def __init__(self, settings: AdversarialSettings, pair: nn.Module | None, growth: growing.Schedule | None):
        """As `Adversarial` has it."""
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
        self.history = HistoricalAverage(pair) if s.historical_averaging and pair is not None else None
        self.dictionaries = (
            dictionaries.dictionaries_of(pair.get_submodule("discriminator")) if pair is not None else []
        )
        self.memory: dict[str, Tensor] = dict(self.history.memory) if self.history else {}
        if s.path_length_weight:
            self.memory[PATH_LENGTH] = torch.zeros(())

    def staged(self, learner: Any, batch: ImageBatch, step: int) -> ImageBatch:
        """The batch as the pair sees it: one that grows is brought to the level of the step, and images to its side."""
        return batch if self.growth is None else self.growth.stage(learner.model, batch, step)

    def make(self, pair: Any, noise: tuple[Tensor, ...]) -> Tensor:
        """Images of what `noise_for` gives, with the styles of two noises where they are mixed."""
        if not self.settings.mixing:
            images: Tensor = pair(*noise)
            return images
        return cast(Tensor, pair.synthesise(styles.training_latents(pair, noise[0], self.settings.mixing)))

    def discriminator(self, learner: Any, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The adversarial loss, with the regulariser unless that has a phase of its own; the generator is fixed."""
        batch = self.staged(learner, batch, step)
        pair, real, noise = learner.model, batch.images, noise_for(learner.model, batch)
        with torch.no_grad():
            fake = self.make(pair, noise)
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
        if s.information:
            said = codes.information(pair, noise[0], fake)
            loss = loss - s.information * said
            metrics[codes.INFORMATION] = said.detach()
        if self.regulariser is not None and not self.lazy:
            penalty = self.regulariser(scores_for(pair, batch), real, fake)
            loss = loss + s.regulariser_weight * penalty
            metrics["regulariser"] = penalty.detach()
        return self._with_history(loss, learner, "discriminator"), metrics

    def regularise(self, learner: Any, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The regulariser alone, weighted by the steps that pass between two of its updates."""
        assert self.regulariser is not None, "a training without a regulariser has no such phase"
        batch = self.staged(learner, batch, step)
        pair = learner.model
        with torch.no_grad():
            fake = self.make(pair, noise_for(pair, batch))
        penalty = self.regulariser(scores_for(pair, batch), batch.images, fake)
        weight = self.settings.regulariser_weight * self.settings.regulariser_every
        # The log's means are over all steps, also those without this phase.
        return weight * penalty, {"regulariser": penalty.detach() * self.settings.regulariser_every}

    def generator(self, learner: Any, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of as many generated images as the batch has real ones.

        Of these only the labels are used, unless the features of both are matched.
        """
        batch = self.staged(learner, batch, step)
        pair, s = learner.model, self.settings
        metrics: dict[str, Tensor] = {}
        if s.path_length_weight:
            metrics[PATH_LENGTH] = learner.get_buffer(PATH_LENGTH).clone()
        noise = noise_for(pair, batch)
        fake = self.make(pair, noise)
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
        if s.information:
            loss = loss - s.information * codes.information(pair, noise[0], fake)
        if s.orthogonality:
            penalty = orthogonality(pair.generator)
            loss = loss + s.orthogonality * penalty
            metrics["orthogonality"] = penalty.detach()
        return self._with_history(loss, learner, "generator"), metrics

    def path_length(self, learner: Any, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
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
