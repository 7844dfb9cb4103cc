"""Learn to write pictures as codes and to draw them again (Esser et al. 2021, arXiv:2012.09841, section 3.1).

A tokenizer learns to reconstruct: pixels, features of a frozen VGG16 where its weights are at hand, the codebook, and,
after a while, the opinion of a critic that learns beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from orchard.errors import OrchardError
from orchard.nn.patch_critic import PatchCritic
from orchard.nn.perceptual import Lpips
from orchard.nn.quantizer import CodeRestart, EmaQuantizer, Reconstruction, VectorQuantizer
from orchard.tasks.image_classification import ImageBatch
from orchard.tasks.phases import Phase
from orchard.weights.foreign import read_checkpoint

LARGEST_WEIGHT = 1e4  # of the critic's opinion, however flat the other losses are
EPS = 1e-4


class TokenizationSettings(BaseModel):
    """What a tokenizer learns from."""

    model_config = ConfigDict(extra="forbid", validate_default=True)

    pixel_loss: Literal["l1", "l2"] = Field("l1", description="of pixels, unless the tokenizer has a density")
    codebook_weight: float = Field(1.0, ge=0, description="of the codebook's loss")
    perceptual_weight: float = Field(1.0, ge=0, description="of LPIPS; without its files nothing perceptual is learned")
    perceptual_files: tuple[str, ...] = Field(
        (), description="LPIPS weights: one VQGAN checkpoint, or torchvision's VGG16 and the LPIPS file for it"
    )
    critic_weight: float = Field(0.8, ge=0, description="of the critic, beside the adaptive weight; 0: none")
    critic_start: int = Field(10_000, ge=0, description="step from which on the critic learns and is listened to")
    critic_layers: int = Field(3, ge=1, description="convolutions of stride 2 in the critic; fewer see smaller patches")
    critic_width: int = Field(64, ge=1, description="channels of the critic's first convolution")
    restart_after: int | None = Field(
        10, gt=0, description="batches after which an unused code starts anew; more for codebooks larger than a batch"
    )


class Tokenizer(Protocol):
    """What this task asks of a model besides `forward(images) -> Reconstruction`."""

    config: Any  # with in_channels and codes
    value_range: tuple[float, float]

    @property
    def last_layer(self) -> Tensor: ...


class TokenizerTraining(nn.Module):
    """A tokenizer and what is needed to train it: a critic, a frozen perceptual distance, a watch over idle codes."""

    def __init__(self, tokenizer: nn.Module, critic: PatchCritic | None, perceptual: Lpips | None, restart: int | None):
        super().__init__()
        self.tokenizer = tokenizer
        self.critic = critic
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
        """The tokenizer's groups; the critic counts as its last layer."""
        groups = cast(Any, self.tokenizer).layer_groups()
        *most, last = [tuple(f"tokenizer.{prefix}" for prefix in group) for group in groups]
        return [*most, (*last, "critic.")]


def tokenizer_training(tokenizer: nn.Module, settings: TokenizationSettings) -> TokenizerTraining:
    """Put a tokenizer together with the critic and the distance that the settings ask for."""
    critic = None
    if settings.critic_weight:
        critic = PatchCritic(
            cast(Any, tokenizer.config).in_channels, width=settings.critic_width, layers=settings.critic_layers
        )
    perceptual = None
    if settings.perceptual_weight and settings.perceptual_files:
        perceptual = read_perceptual(settings.perceptual_files)
    return TokenizerTraining(tokenizer, critic, perceptual, settings.restart_after)


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

    name = "image-tokenization"
    quality = "psnr"  # the figure by which checkpoints are chosen; larger is better
    logged = ("psnr", "ssim", "l1", "codebook_use", "code_perplexity")

    def __init__(self, settings: TokenizationSettings):
        self.settings = settings
        drawing = Phase("tokenizer", ("tokenizer.",), self.tokenizer_loss)
        judging = Phase("critic", ("critic.",), self.critic_loss)
        self.phases = (drawing, judging) if settings.critic_weight else (drawing,)

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
        if training.critic is not None and step >= settings.critic_start:
            adversarial = -training.critic(drawn).float().mean()
            weight = adaptive_weight(loss, adversarial, cast(Tokenizer, training.tokenizer).last_layer)
            figures |= {"adversarial_loss": adversarial, "adaptive_weight": weight}
            total = total + settings.critic_weight * weight * adversarial
        with torch.no_grad():
            figures["code_perplexity"] = _perplexity(torch.bincount(found.codes.flatten()))
        return total, {name: figure.detach() for name, figure in figures.items()}

    def critic_loss(self, model: nn.Module, batch: ImageBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The hinge loss of the critic on real and drawn pictures; nothing before its time."""
        training = cast(TokenizerTraining, model)
        critic = training.critic
        assert critic is not None, "a training without a critic has no such phase"
        if step < self.settings.critic_start:
            return 0.0 * sum((p.sum() for p in critic.parameters()), torch.zeros(())), {}
        with torch.no_grad(), _codebook_at_rest(training.tokenizer):  # this batch has taught it once
            drawn = training.tokenizer(batch.images).images.float()
        real, fake = critic(batch.images).float(), critic(drawn).float()
        loss = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
        return loss, {"score_real": real.detach().mean(), "score_drawn": fake.detach().mean()}

    def observe(self, outputs: dict[str, Tensor], batch: ImageBatch) -> dict[str, Tensor]:
        """Figures of one phase for the log: the losses before their weights."""
        return outputs

    @torch.no_grad()
    def score(self, model: nn.Module, batches: Iterable[ImageBatch]) -> dict[str, float]:
        """How well a split is drawn again, and how much of the codebook it needs.

        `psnr` in dB (mean over pictures), `ssim`, `l1` on the tokenizer's scale; `codebook_use` is the share of codes
        that occur, `code_perplexity` the number of equally frequent codes that would be as hard to guess.
        """
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
    """How much of the critic makes its pull on the last layer as strong as that of the other losses (equation 7)."""
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
