"""Codebooks: from vectors on a grid to whole numbers and back, with a gradient through the choice.

Three ways to learn the codes: by a loss and by moving averages (van den Oord et al. 2017, arXiv:1711.00937, equation 3
and appendix A.1), and by a relaxed choice (Jang et al. 2017, arXiv:1611.01144). Legend: B pictures, h x w a grid of
places, D the width of a code, K codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.nn.checks import check_images


@dataclass(frozen=True)
class Quantized:
    """vectors (B, D, h, w), codes with the gradient passed on; codes (B, h, w) int64; loss, a scalar."""

    vectors: Tensor
    codes: Tensor
    loss: Tensor


@dataclass(frozen=True)
class Reconstruction:
    """What an image tokenizer's forward gives.

    images: (B, C, H, W), in the space of its input;
    codes: (B, h, w) int64;
    codebook_loss: a scalar, what the quantizer wants made small;
    latents: (B, D, h, w), what was quantized;
    density_loss: a scalar, nats per value, where the tokenizer has a density of pixels of its own.
    """

    images: Tensor
    codes: Tensor
    codebook_loss: Tensor
    latents: Tensor
    density_loss: Tensor | None = None


def check_pictures(images: Tensor, channels: int, stride: int) -> None:
    """Raise ValueError unless `images` is a float (B, channels, H, W) whose sides divide into cells of `stride`."""
    check_images(images, channels)
    if images.shape[2] % stride or images.shape[3] % stride or 0 in images.shape[2:]:
        raise ValueError(f"expected pictures with sides that are multiples of {stride}, got {tuple(images.shape)}")


def check_codes(codes: Tensor, count: int) -> None:
    """Raise ValueError unless `codes` is int64 (B, h, w) with every entry from 0 to count - 1."""
    if codes.ndim != 3 or codes.dtype != torch.int64:
        raise ValueError(f"expected codes of shape (B, h, w) int64, got {tuple(codes.shape)} {codes.dtype}")
    if codes.is_meta or torch.compiler.is_compiling() or not codes.numel():
        return  # there are no values to read
    if not 0 <= int(codes.min()) <= int(codes.max()) < count:
        raise ValueError(f"expected codes from 0 to {count - 1}, got {int(codes.min())} to {int(codes.max())}")


def nearest_codes(vectors: Tensor, codebook: Tensor) -> Tensor:
    """The nearest of K codes (K, D) by Euclidean distance for each place, (B, D, h, w) → (B, h, w) int64."""
    flat = vectors.detach().movedim(1, -1).flatten(0, -2)
    # Stays in float32 under autocast: in bfloat16 neighbouring codes are the same.
    distances = torch.cdist(flat, codebook.detach())
    return distances.argmin(1).view(vectors.shape[0], *vectors.shape[2:])


class VectorQuantizer(nn.Module):
    """The nearest code, learned by a loss, (B, D, h, w) → `Quantized`.

    The loss has a codebook term, which moves codes to vectors, and a commitment term, which moves vectors to codes;
    `beta` multiplies the one that `beta_on` names. The paper's equation 3 has it on the commitment; the published
    VQGANs were trained with it on the codebook. Codes start uniform in ±`spread`.
    """

    def __init__(
        self, codes: int, width: int, *, beta: float, beta_on: Literal["commitment", "codebook"], spread: float
    ):
        super().__init__()
        self.on_commitment, self.on_codebook = (beta, 1.0) if beta_on == "commitment" else (1.0, beta)
        self.codebook = nn.Parameter(torch.empty(codes, width).uniform_(-spread, spread))

    def forward(self, vectors: Tensor) -> Quantized:
        codes = nearest_codes(vectors, self.codebook)
        chosen = self.lookup(codes)
        loss = self.on_commitment * F.mse_loss(vectors, chosen.detach())
        loss = loss + self.on_codebook * F.mse_loss(chosen, vectors.detach())
        return Quantized(vectors + (chosen - vectors).detach(), codes, loss)  # straight through

    def lookup(self, codes: Tensor) -> Tensor:
        """The codes' vectors, (B, h, w) → (B, D, h, w)."""
        return F.embedding(codes, self.codebook).movedim(-1, 1)

    @torch.no_grad()
    def replace(self, places: Tensor, vectors: Tensor) -> None:
        """Put vectors (n, D) in place of the codes at `places` (n,)."""
        self.codebook[places] = vectors.to(self.codebook.dtype)


class EmaQuantizer(nn.Module):
    """The nearest code, each code the moving average of the vectors that chose it, (B, D, h, w) → `Quantized`.

    Averages are freed from their start at zero, and counts smoothed with `eps`, as in Sonnet's VectorQuantizerEMA. They
    move in training only, after the codes of the batch are chosen. The loss is the commitment alone. The codebook is
    no parameter. Codes start uniform in ±`spread`.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    steps: Tensor

    def __init__(self, codes: int, width: int, *, beta: float, decay: float, eps: float, spread: float):
        super().__init__()
        self.beta = beta
        self.decay = decay
        self.eps = eps
        self.register_buffer("codebook", torch.empty(codes, width).uniform_(-spread, spread))
        self.register_buffer("counts", torch.zeros(codes))  # running mean of the places that choose a code
        self.register_buffer("sums", torch.zeros(codes, width))  # and of the sum of their vectors
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, vectors: Tensor) -> Quantized:
        codes = nearest_codes(vectors, self.codebook)
        chosen = self.lookup(codes)
        if self.training:
            self._learn(vectors, codes)
        loss = self.beta * F.mse_loss(vectors, chosen)
        return Quantized(vectors + (chosen - vectors).detach(), codes, loss)

    def lookup(self, codes: Tensor) -> Tensor:
        """The codes' vectors, (B, h, w) → (B, D, h, w)."""
        return F.embedding(codes, self.codebook).movedim(-1, 1)

    @torch.no_grad()
    def _learn(self, vectors: Tensor, codes: Tensor) -> None:
        flat = vectors.movedim(1, -1).flatten(0, -2).to(self.sums.dtype)
        counts = torch.bincount(codes.flatten(), minlength=len(self.counts)).to(self.counts.dtype)
        sums = torch.zeros_like(self.sums).index_add_(0, codes.flatten(), flat)
        if distributed.is_initialized():
            distributed.all_reduce(counts)
            distributed.all_reduce(sums)
        self.steps += 1
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        started = self._started()
        sizes, total = self.counts / started, self.counts.sum() / started
        sizes = (sizes + self.eps) / (total + len(sizes) * self.eps) * total
        self.codebook.copy_(self.sums / started / sizes[:, None])

    def _started(self) -> Tensor:
        """How much of an average is not its start at zero."""
        return 1 - self.decay ** self.steps.to(self.counts.dtype)

    @torch.no_grad()
    def replace(self, places: Tensor, vectors: Tensor) -> None:
        """Put vectors (n, D) in place of the codes at `places` (n,), as if one vector a step had chosen each."""
        self.codebook[places] = vectors.to(self.codebook.dtype)
        self.sums[places] = vectors.to(self.sums.dtype) * self._started()
        self.counts[places] = self._started()


class GumbelQuantizer(nn.Module):
    """A linear map scores the codes and a relaxed sample of them is mixed, (B, N, h, w) → `Quantized`.

    In training the mix is a Gumbel softmax at `temperature`; in evaluation the best code alone, without noise. The loss
    is `kl_weight` times the divergence of the scores' distribution from the uniform one, nats per place.
    """

    def __init__(self, inputs: int, codes: int, width: int, *, temperature: float, kl_weight: float):
        super().__init__()
        self.temperature = temperature
        self.kl_weight = kl_weight
        self.scores = nn.Conv2d(inputs, codes, 1)
        self.codebook = nn.Parameter(torch.randn(codes, width))

    def forward(self, features: Tensor) -> Quantized:
        scores = self.scores(features)
        codes = scores.argmax(1)
        logs = scores.float().log_softmax(1)
        loss = self.kl_weight * ((logs.exp() * logs).sum(1).mean() + math.log(len(self.codebook)))
        if not self.training:
            return Quantized(self.lookup(codes), codes, loss)
        mix = F.gumbel_softmax(scores, tau=self.temperature, dim=1)  # (B, K, h, w)
        return Quantized(torch.einsum("bkhw,kd->bdhw", mix, self.codebook), codes, loss)

    def lookup(self, codes: Tensor) -> Tensor:
        """The codes' vectors, (B, h, w) → (B, D, h, w)."""
        return F.embedding(codes, self.codebook).movedim(-1, 1)


class Restartable(Protocol):
    """A quantizer whose codes can be moved."""

    def lookup(self, codes: Tensor) -> Tensor: ...
    def replace(self, places: Tensor, vectors: Tensor) -> None: ...


class CodeRestart(nn.Module):
    """Moves codes that nobody has chosen for `patience` batches to where they are wanted.

    That is to vectors of the batch, drawn with chances that grow with the square of their distance from their code (as
    k-means++ starts). Every code counts as idle at first, so the first batch is also the start of the codebook. Belongs
    to training, not to the tokenizer: what it remembers is no part of the model.
    """

    idle: Tensor

    def __init__(self, codes: int, patience: int):
        super().__init__()
        self.patience = patience
        self.register_buffer("idle", torch.full((codes,), patience))  # batches since a code was last chosen

    @torch.no_grad()
    def forward(self, quantizer: Restartable, latents: Tensor, codes: Tensor) -> None:
        """To be called with every batch of training: latents (B, D, h, w) and the codes (B, h, w) they chose."""
        flat = latents.detach().movedim(1, -1).flatten(0, -2).float()
        error = (flat - quantizer.lookup(codes).movedim(1, -1).flatten(0, -2)).square().sum(1)
        used = torch.bincount(codes.flatten(), minlength=len(self.idle)) > 0
        error = error.nan_to_num(0.0, 0.0)  # of a training that diverges: its loss says so better than the draw
        picked = flat[torch.multinomial(error + 1e-12, len(self.idle), replacement=True)]
        if distributed.is_initialized():  # all processes see all codes and take the same vectors
            used = used.to(torch.int64)
            distributed.all_reduce(used)
            used = used > 0
            distributed.broadcast(picked, 0)
        self.idle.add_(1).masked_fill_(used, 0)
        places = (self.idle >= self.patience).nonzero().flatten()
        quantizer.replace(places, picked[: len(places)])
        self.idle[places] = 0
