"""Feature quantisation: the features of a discriminator as codes of a dictionary that follows them.

Zhao et al. 2020 (arXiv:2004.02088, section 3), and the authors' code. Every position of a map takes the nearest code;
each code is the moving average of the features that chose it. Legend: B images, D channels of a map of h x w, K codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.nn.quantizer import CodeRestart, nearest_codes

Behaviour = Literal["paper", "released"]

EPS = 1e-5  # of Laplace smoothing
PATIENCE = 10  # batches without being chosen after which a code is revived
DEAD = 0.01  # positions of a batch that choose a code, running mean, below which it is dead


@dataclass(frozen=True)
class QuantizedFeatures:
    """What a dictionary says of features (B, D, h, w).

    passed: (B, D, h, w), what the next layer is given;
    vectors: (B, D, h, w), the codes' vectors with the gradient passed straight through;
    codes: (B, h, w) int64;
    loss: (B,), the weighted commitment of each image;
    perplexity: a scalar, 1 to K: how many codes the features use, as if all of those were used alike.
    """

    passed: Tensor
    vectors: Tensor
    codes: Tensor
    loss: Tensor
    perplexity: Tensor


class FeatureQuantizer(nn.Module):
    """A dictionary of K codes of width D, which are buffers, in one of two behaviours.

    `paper`: features are replaced by their codes, the loss is the discriminator's alone, and codes that nobody chooses
    are moved to features of the batch. `released`, as the authors' code does it: features go on as they are, so that
    the loss alone acts; it is both networks'; and a code that nobody chooses in the first batches is divided by next to
    nothing, so that no feature is ever near it.

    Args:
        codes: K.
        width: D.
        decay: share of the old in the moving averages of a batch.
        commitment: weight of the loss.
        behaviour: see above.
    """

    codebook: Tensor  # (K, D)
    counts: Tensor  # (K,), running mean of the positions that choose a code
    sums: Tensor  # (K, D), and of the sum of their features

    def __init__(self, codes: int, width: int, *, decay: float, commitment: float, behaviour: Behaviour):
        super().__init__()
        self.decay, self.commitment, self.behaviour = decay, commitment, behaviour
        self.register_buffer("codebook", torch.randn(codes, width))
        self.register_buffer("counts", torch.zeros(codes))
        # The released code begins with the sum of one feature and a count of none, which is what blows codes up.
        self.register_buffer("sums", self.codebook * (behaviour == "released"))
        self.restart = CodeRestart(codes, PATIENCE) if behaviour == "paper" else None

    def forward(self, features: Tensor, heard: list[QuantizedFeatures] | None = None) -> Tensor:
        """What goes on of features (B, D, h, w). With `heard`, what else is known is put there, and in training the
        dictionary learns from the features, once their codes are chosen; without it, it stays as it is."""
        if heard is None and self.behaviour == "released":
            return features
        codes = nearest_codes(features.float(), self.codebook.float())
        chosen = self.lookup(codes)
        vectors = features + (chosen.to(features.dtype) - features).detach()
        passed = vectors if self.behaviour == "paper" else features
        if heard is None:
            return passed
        loss = self.commitment * (features.float() - chosen.float()).square().mean((1, 2, 3))
        used = torch.bincount(codes.flatten(), minlength=len(self.counts))
        shares = used / codes.numel()
        perplexity = (-shares * (shares + 1e-10).log()).sum().exp()
        heard.append(QuantizedFeatures(passed, vectors, codes, loss, perplexity))
        if self.training:
            self._learn(features, codes, used)
        return passed

    def lookup(self, codes: Tensor) -> Tensor:
        """The codes' vectors, (B, h, w) → (B, D, h, w)."""
        return F.embedding(codes, self.codebook).movedim(-1, 1)

    def dead(self) -> Tensor:
        """The share of codes that are hardly chosen any more, a scalar; 1 before the first batch."""
        return (self.counts < DEAD).float().mean()

    @torch.no_grad()
    def _learn(self, features: Tensor, codes: Tensor, used: Tensor) -> None:
        flat = features.detach().movedim(1, -1).flatten(0, -2).to(self.sums.dtype)
        counts = used.to(self.counts.dtype)
        sums = torch.zeros_like(self.sums).index_add_(0, codes.flatten(), flat)
        if distributed.is_initialized():
            distributed.all_reduce(counts)
            distributed.all_reduce(sums)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        total = self.counts.sum()
        sizes = (self.counts + EPS) / (total + len(self.counts) * EPS) * total
        self.codebook.copy_(self.sums / sizes[:, None])
        if self.restart is not None:
            self.restart(self, features, codes)

    @torch.no_grad()
    def replace(self, places: Tensor, vectors: Tensor) -> None:
        """Put vectors (n, D) in place of the codes at `places` (n,), as if one position a batch had chosen each."""
        self.codebook[places] = vectors.to(self.codebook.dtype)
        self.sums[places] = vectors.to(self.sums.dtype)
        self.counts[places] = 1.0


def all_idle(codes: int) -> Tensor:
    """What revives codes begins with: none of them has been chosen yet, (K,) int64."""
    return torch.full((codes,), PATIENCE)
