"""Learning with a reference picture: pixels, features, transferred textures and a discriminator (TTSR).

Yang et al. 2020 (arXiv:2006.04139), section 3.3, with the sums and weights of the official code: the transferal loss
compares features with the transferred ones themselves, and means are over all values.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.patches import ReferenceBatch
from orchard.errors import OrchardError
from orchard.models.restoration.ttsr_discriminator import TextureDiscriminator
from orchard.nn.vgg_features import VggFeatures
from orchard.tasks.super_resolution.metrics import METRICS
from orchard.tasks.super_resolution.objective import SuperResolution
from orchard.tasks.super_resolution.settings import Settings
from orchard.tasks.super_resolution.upscaling import to_network
from orchard.tasks.unconditional_image_generation.losses import LOSSES
from orchard.tasks.unconditional_image_generation.regularisers import gradient_penalty
from orchard.training.learner import Learner
from orchard.training.phases import Phase
from orchard.training.settings import OptimizerSettings
from orchard.weights.foreign import read_checkpoint

if TYPE_CHECKING:
    from orchard.report.run_page import Curve

DISCRIMINATOR = "discriminator"  # its phase and its optimizer
BETAS = {"momentum": 0.0, "beta2": 0.9}  # of its Adam, those of WGAN-GP
WASSERSTEIN = LOSSES["wasserstein"]


class TextureTraining(Learner):
    """A network that takes a reference, and the discriminator it learns against, if any."""

    def __init__(self, model: nn.Module, discriminator: TextureDiscriminator | None):
        super().__init__()
        self.model, self.discriminator = model, discriminator

    @property
    def config(self) -> Any:
        """The network's."""
        return self.model.config

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The network's; the discriminator counts as its last layer."""
        *most, last = (tuple(f"model.{name}" for name in group) for group in cast(Any, self.model).layer_groups())
        return [*most, (*last, "discriminator.")]


class TextureTransfer(SuperResolution):
    """The losses and the phases of training a `TextureTraining`.

    The network's update comes first in a step, as its progress is that of the training; the official code updates the
    discriminator first.
    """

    def __init__(self, settings: Settings, perceptual: VggFeatures | None, steps_per_epoch: int):
        super().__init__(settings.loss)
        self.settings = s = settings.texture
        self.perceptual = perceptual
        self.warmup = round(s.warmup_epochs * steps_per_epoch)
        self.phases = (Phase("network", self.network_loss, ("model.",)),)
        self.logged = (*self.logged, "reconstruction_loss")
        if perceptual is not None and s.perceptual_weight:
            self.logged += ("perceptual_loss",)
        if s.transferal_weight:
            self.logged += ("transferal_loss",)
        if s.perceptual_weight and perceptual is None:
            self.remarks = (
                "texture.vgg names no VGG-19 weights: the perceptual loss is left out, the texture extractor begins at "
                "random",
            )
        self.selects = not s.adversarial_weight
        if s.adversarial_weight:
            self.phases += (
                Phase(
                    DISCRIMINATOR, self.discriminator_loss, (f"{DISCRIMINATOR}.",), DISCRIMINATOR,
                    repeat=s.discriminator_steps, begins=self.warmup,
                ),
            )  # fmt: skip
            self.logged += ("adversarial_loss", "score_real", "score_fake")

    def curves(self) -> tuple[Curve, ...]:
        from orchard.report.run_page import Curve

        own = self.logged[2 * len(METRICS) :]
        return tuple(Curve(name.replace("_", " ").capitalize(), name, "before its weight") for name in own)

    def network(self, model: nn.Module) -> nn.Module:
        return cast(TextureTraining, model).model

    def optimizer_settings(self, name: str, common: OptimizerSettings) -> OptimizerSettings:
        """The discriminator's are WGAN-GP's; shares of the learning rate are of the network's own names."""
        if name != DISCRIMINATOR:
            scales = {f"model.{prefix}": share for prefix, share in common.scales.items()}
            return common.model_copy(update={"scales": scales})
        return common.model_copy(update={**BETAS, "lr": self.settings.discriminator_lr or common.lr})

    def network_loss(self, model: nn.Module, batch: ReferenceBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the losses, a scalar, and each of them before its weight; at first that of pixels."""
        training, s = cast(TextureTraining, model), self.settings
        network: Any = training.model
        low, high, reference = (to_network(x, network) for x in (batch.low, batch.high, batch.reference))
        textures = network.textures(low, reference)
        found = network.synthesise(low, textures).float()
        total = self.difference(found, high)
        metrics = {"reconstruction_loss": total}
        if step >= self.warmup:
            if self.perceptual is not None and s.perceptual_weight:
                metrics["perceptual_loss"] = perceptual_loss(self.perceptual, found, high)
                total = total + s.perceptual_weight * metrics["perceptual_loss"]
            if s.transferal_weight:
                described = describe_frozen(network.extractor, found)
                metrics["transferal_loss"] = transferal_loss(described, textures.levels)
                total = total + s.transferal_weight * metrics["transferal_loss"]
            if training.discriminator is not None:
                metrics["adversarial_loss"] = WASSERSTEIN.generator(training.discriminator(found).float())
                total = total + s.adversarial_weight * metrics["adversarial_loss"]
        return total, {name: value.detach() for name, value in metrics.items()}

    def discriminator_loss(
        self, model: nn.Module, batch: ReferenceBatch, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """The Wasserstein loss with the gradient penalty; the network is fixed."""
        training = cast(TextureTraining, model)
        network: Any = training.model
        low, real, reference = (to_network(x, network) for x in (batch.low, batch.high, batch.reference))
        with torch.no_grad():
            fake = network(low, reference).float()
        loss, scores = wasserstein_loss(training.discriminator, real, fake, self.settings.gradient_penalty)
        return loss, scores


def wasserstein_loss(
    discriminator: Any, real: Tensor, fake: Tensor, weight: float, epsilon: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """What the discriminator learns from, a scalar, and the mean scores. `epsilon` (B, 1, 1, 1) is the share of the
    real image in each interpolate; without it, it is drawn."""
    if epsilon is None:
        epsilon = torch.rand(len(real), 1, 1, 1, device=real.device)
    real_scores, fake_scores = discriminator(real).float(), discriminator(fake).float()
    penalty = gradient_penalty(lambda images: discriminator(images).float(), real, fake, epsilon)
    loss = WASSERSTEIN.discriminator(real_scores, fake_scores) + weight * penalty
    return loss, {"score_real": real_scores.detach().mean(), "score_fake": fake_scores.detach().mean()}


def perceptual_loss(vgg: VggFeatures, found: Tensor, truth: Tensor) -> Tensor:
    """The mean squared difference of the last features of images in [-1, 1], a scalar."""
    return F.mse_loss(*(vgg((images + 1) / 2)[-1].float() for images in (found, truth)))


def transferal_loss(described: Sequence[Tensor], textures: Sequence[Tensor]) -> Tensor:
    """The mean squared difference of features, the finest first, and textures, the coarsest first; over all levels."""
    pairs = zip(reversed(described), textures, strict=True)
    return torch.stack([F.mse_loss(a.float(), b) for a, b in pairs]).mean()


def describe_frozen(extractor: nn.Module, images: Tensor) -> list[Tensor]:
    """Features of images in [-1, 1] by a copy of the extractor that stands still: only the images have a gradient."""
    state = {name: tensor.detach() for name, tensor in extractor.state_dict(keep_vars=True).items()}
    found: list[Tensor] = torch.func.functional_call(extractor, state, ((images + 1) / 2,))
    return found


def read_vgg(file: str, features: VggFeatures) -> VggFeatures:
    """The features with VGG-19's weights. Raises OrchardError where the file is missing or has others."""
    try:
        features.load(read_checkpoint(Path(file)))
    except KeyError as error:
        raise OrchardError(f"{file}: no tensor {error}; expected torchvision's VGG-19") from None
    except RuntimeError as error:
        raise OrchardError(
            f"{file} does not fit the texture extractor: {str(error).splitlines()[-1].strip()}; leave out texture.vgg"
        ) from None
    return features


def texture_training(
    model: nn.Module, settings: Settings, steps_per_epoch: int, device: torch.device
) -> tuple[TextureTraining, TextureTransfer]:
    """A network in training by the losses that the settings weigh, and those losses."""
    s, network = settings.texture, cast(Any, model)
    side = settings.patch * network.scales[-1]
    discriminator = TextureDiscriminator(side) if s.adversarial_weight else None
    perceptual = None
    if s.vgg and s.perceptual_weight:  # its weights are a file's, so that no checkpoint has to hold them
        perceptual = read_vgg(s.vgg, VggFeatures()).requires_grad_(False).to(device)
    return TextureTraining(model, discriminator), TextureTransfer(settings, perceptual, steps_per_epoch)
