"""Learn to write pictures as codes and to draw them again (Esser et al. 2021, arXiv:2012.09841, section 3.1).

A tokenizer learns to reconstruct: pixels, features of a frozen VGG16 where its weights are at hand, the codebook, and,
after a while, the opinion of a discriminator that learns beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.errors import OrchardError
from orchard.nn.patch_discriminator import PatchDiscriminator
from orchard.nn.perceptual import Lpips
from orchard.nn.quantizer import CodeRestart, EmaQuantizer, Reconstruction, VectorQuantizer
from orchard.tasks.image_tokenization.settings import TokenizationSettings
from orchard.training.learner import Learner
from orchard.training.phases import Phase
from orchard.weights.foreign import read_checkpoint

LARGEST_WEIGHT = 1e4  # of the discriminator's opinion, however flat the other losses are
EPS = 1e-4
DISCRIMINATOR = ("discriminator_loss", "score_real", "score_fake", "adaptive_weight")  # what log.csv says of it


class Tokenizer(Protocol):
    """What this task asks of a model besides `forward(images) -> Reconstruction`."""

    config: Any  # with in_channels and codes
    value_range: tuple[float, float]

    @property
    def last_layer(self) -> Tensor: ...


class TokenizerTraining(Learner):
    """A tokenizer and what trains it: a discriminator, a frozen perceptual loss, and the restart of unused codes."""

    def __init__(
        self,
        tokenizer: nn.Module,
        discriminator: PatchDiscriminator | None,
        perceptual: Lpips | None,
        restart: int | None,
    ):
        super().__init__()
        self.tokenizer = tokenizer
        self.discriminator = discriminator
        self.perceptual = perceptual
        chooses = isinstance(tokenizer.quantizer, (VectorQuantizer, EmaQuantizer))
        self.restart = CodeRestart(self.config.codes, restart) if restart and chooses else None

    @property
    def config(self) -> Any:
        """The tokenizer's."""
        return self.tokenizer.config

    def forward(self, images: Tensor) -> Reconstruction:
        """The tokenizer's answer; in training, codes that have become idle start anew after it."""
        found: Reconstruction = self.tokenizer(images)
        if self.training and self.restart is not None:
            self.restart(self.tokenizer.quantizer, found.latents, found.codes)
        return found

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The tokenizer's groups; the discriminator counts as its last layer."""
        groups = cast(Any, self.tokenizer).layer_groups()
        *most, last = [tuple(f"tokenizer.{prefix}" for prefix in group) for group in groups]
        return [*most, (*last, "discriminator.")]


def tokenizer_training(tokenizer: nn.Module, settings: TokenizationSettings) -> TokenizerTraining:
    """Put a tokenizer together with the discriminator and the distance that the settings ask for."""
    discriminator = None
    if settings.discriminator_weight:
        discriminator = PatchDiscriminator(
            cast(Any, tokenizer.config).in_channels,
            width=settings.discriminator_width,
            layers=settings.discriminator_layers,
        )
    perceptual = None
    if settings.perceptual_weight and settings.perceptual_files:
        perceptual = read_perceptual(settings.perceptual_files)
    return TokenizerTraining(tokenizer, discriminator, perceptual, settings.restart_after)


def read_perceptual(files: Iterable[str | Path]) -> Lpips:
    """LPIPS with weights from one or several official files; raises OrchardError where one is missing."""
    perceptual, tensors = Lpips(), dict[str, Tensor]()
    for file in files:
        tensors |= read_checkpoint(Path(file))
    names = ", ".join(str(file) for file in files)
    try:
        perceptual.load(tensors)
    except KeyError as error:
        raise OrchardError(
            f"{names}: no tensor {error} of LPIPS; expected a VQGAN checkpoint with its loss, or torchvision's "
            "VGG16 and the LPIPS weights for it"
        ) from None
    except RuntimeError as error:
        raise OrchardError(f"{names}: not the VGG16 of LPIPS: {str(error).splitlines()[-1].strip()}") from None
    return perceptual


class ImageTokenization:
    """The losses, the figures and the phases of training a tokenizer; its model is a `TokenizerTraining`."""

    def __init__(self, settings: TokenizationSettings):
        self.settings = settings
        self.phases: tuple[Phase, ...] = (Phase("tokenizer", self.tokenizer_loss, ("tokenizer.",)),)
        self.logged: tuple[str, ...] = (
            "psnr",
            "ssim",
            "l1",
            "codebook_use",
            "code_perplexity",
            "pixel_loss",
            "codebook_loss",
        )
        if settings.discriminator_weight:
            second = Phase("discriminator", self.discriminator_loss, ("discriminator.",), optimizer="discriminator")
            self.phases = (*self.phases, second)
            self.logged = (*self.logged, *DISCRIMINATOR)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What somebody who starts a training should know."""
        if self.settings.perceptual_weight and not self.settings.perceptual_files:
            return ("perceptual_files names no LPIPS weights: nothing perceptual is learned, pictures will be softer",)
        return ()

    def tokenizer_loss(self, model: nn.Module, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of all losses, a scalar, and each of them before its weight."""
        settings, training = self.settings, cast(TokenizerTraining, model)
        images, found = batch.images, cast(Reconstruction, model(batch.images))
        drawn = found.images.float()
        loss = found.density_loss
        if loss is None:
            loss = F.l1_loss(drawn, images) if settings.pixel_loss == "l1" else F.mse_loss(drawn, images)
        figures = {"pixel_loss": loss, "codebook_loss": found.codebook_loss}
        if training.perceptual is not None:
            low, high = cast(Tokenizer, training.tokenizer).value_range
            distance = training.perceptual(*(2 * (x - low) / (high - low) - 1 for x in (images, drawn))).mean()
            figures["perceptual_loss"] = distance
            loss = loss + settings.perceptual_weight * distance
        total = loss + settings.codebook_weight * found.codebook_loss
        if training.discriminator is not None and step >= settings.discriminator_start:
            adversarial = -training.discriminator(drawn).float().mean()
            weight = adaptive_weight(loss, adversarial, cast(Tokenizer, training.tokenizer).last_layer)
            figures |= {"adversarial_loss": adversarial, "adaptive_weight": weight}
            total = total + settings.discriminator_weight * weight * adversarial
        with torch.no_grad():
            figures["code_perplexity"] = _perplexity(torch.bincount(found.codes.flatten()))
        return total, {name: figure.detach() for name, figure in figures.items()}

    def discriminator_loss(self, model: nn.Module, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The hinge loss of the discriminator on real and drawn pictures; nothing before its time."""
        training = cast(TokenizerTraining, model)
        discriminator = training.discriminator
        assert discriminator is not None, "a training without a discriminator has no such phase"
        if step < self.settings.discriminator_start:
            return 0.0 * sum((p.sum() for p in discriminator.parameters()), torch.zeros(())), {}
        with torch.no_grad(), _codebook_at_rest(training.tokenizer):  # this batch has taught it once
            drawn = training.tokenizer(batch.images).images.float()
        real, fake = discriminator(batch.images).float(), discriminator(drawn).float()
        loss = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
        return loss, {"score_real": real.detach().mean(), "score_fake": fake.detach().mean()}

    @torch.no_grad()
    def compute_metrics(self, model: nn.Module, batches: Iterable[ImageBatch]) -> dict[str, float]:
        """How well a split is drawn again, and how much of the codebook it needs.

        `psnr` in dB (mean over pictures), `ssim`, `l1` on the tokenizer's scale; `codebook_use` is the share of codes
        that occur, `code_perplexity` the number of equally frequent codes that would be as hard to guess.
        """
        from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure  # here: it takes seconds

        tokenizer: Any = model.tokenizer if isinstance(model, TokenizerTraining) else model
        low, high = tokenizer.value_range
        device = next(tokenizer.parameters()).device
        psnr = PeakSignalNoiseRatio(data_range=(low, high), dim=(1, 2, 3)).to(device)
        ssim = StructuralSimilarityIndexMeasure(data_range=(low, high)).to(device)
        counts = torch.zeros(tokenizer.config.codes, dtype=torch.int64, device=device)
        differences, values = torch.zeros((), dtype=torch.float64, device=device), 0
        for batch in batches:
            found = tokenizer(batch.images)
            drawn = found.images.float().clamp(low, high)
            psnr.update(drawn, batch.images)
            ssim.update(drawn, batch.images)
            differences += (drawn - batch.images).abs().sum()
            values += drawn.numel()
            counts += torch.bincount(found.codes.flatten(), minlength=len(counts))
        return {
            "psnr": float(psnr.compute()),
            "ssim": float(cast(Tensor, ssim.compute())),
            "l1": float(differences) / values,
            "codebook_use": float((counts > 0).double().mean()),
            "code_perplexity": float(_perplexity(counts)),
        }


def adaptive_weight(loss: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """The weight that makes the adversarial gradient at the last layer as large as that of the other losses (eq. 7)."""
    wanted, found = (
        torch.autograd.grad(term, last_layer, retain_graph=True)[0].float().norm() for term in (loss, adversarial)
    )
    return (wanted / (found + EPS)).clamp(0, LARGEST_WEIGHT).detach()


@contextmanager
def _codebook_at_rest(tokenizer: nn.Module) -> Iterator[None]:
    """Moving averages of a codebook do not move in here."""
    quantizer = cast(nn.Module, tokenizer.quantizer)
    moves = isinstance(quantizer, EmaQuantizer) and quantizer.training
    quantizer.train(quantizer.training and not moves)
    yield
    quantizer.train(quantizer.training or moves)


def _perplexity(counts: Tensor) -> Tensor:
    shares = counts / counts.sum()
    return (-torch.special.xlogy(shares, shares).sum()).exp()
