"""What comes next in this text?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.batches import TokenBatch
from orchard.training.phases import one_phase


@dataclass(frozen=True)
class TokenNLL:
    """The negative log likelihood of a text: `nats`, the sum of -log p over `tokens` predictions."""

    nats: float
    tokens: int

    def __add__(self, other: TokenNLL) -> TokenNLL:
        return TokenNLL(self.nats + other.nats, self.tokens + other.tokens)


class TextGeneration:
    """The loss and the figures for a model that gives logits (B, T, V) of the token after each of (B, T)."""

    logged = ("perplexity",)

    def __init__(self) -> None:
        self.phases = one_phase(self.loss, through_forward=True)

    def loss(self, model: nn.Module, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean -log p of the predictions that count, in nats per token: all other metrics are functions of it."""
        nats = self.nats(model, batch)
        return (nats * batch.weights).sum() / batch.weights.sum(), {}

    def nats(self, model: nn.Module, batch: TokenBatch) -> Tensor:
        """-log p of each prediction, (B, T) float32."""
        return nats_of(model(batch.inputs), batch.targets)

    def compute_metrics(self, nll: TokenNLL, *, characters: int, size: int, words: int) -> dict[str, float]:
        """The metrics of a split that has so many `characters` and `words`, and `size` bytes of UTF-8.

        `loss` in nats per token; `perplexity`, its exponential; `bits_per_character`, `bits_per_byte` and (where words
        stand between spaces) `word_perplexity`, which can be compared between tokenizers. A split's first token is
        given, and costs nothing.
        """
        loss, bits = nll.nats / nll.tokens, nll.nats / math.log(2)
        spaced = {"word_perplexity": math.exp(min(nll.nats / words, 700.0))} if 12 * words > characters else {}
        return {
            "loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),  # beyond, no float holds it
            "bits_per_character": bits / characters,
            "bits_per_byte": bits / size,
            **spaced,
        }


def nats_of(logits: Tensor, targets: Tensor) -> Tensor:
    """-log p (B, T) float32 of `targets` (B, T) by logits (B, T, V)."""
    nats = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return nats.view(targets.shape)


@torch.no_grad()
def measure(objective: TextGeneration, model: nn.Module, batches: Iterable[TokenBatch]) -> TokenNLL:
    """Run `model`, as it stands, over batches that are already on its device."""
    total = TokenNLL(0.0, 0)
    for batch in batches:
        nats = objective.nats(model, batch)
        total += TokenNLL(float((nats * batch.weights).sum()), int(batch.weights.sum()))
    return total
