"""What comes next in this text?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.tasks.phases import one_phase


@dataclass(frozen=True)
class TokenBatch:
    """What this task learns from.

    tokens: (B, T + 1) int64; a model reads the first T and is asked for the last T;
    weights: (B, T) float32, what each answer counts: 1, or 0 where nothing is asked (padding);
    starts: (B,) int64, the place of each row's first token in its split.
    """

    tokens: Tensor
    weights: Tensor
    starts: Tensor

    @property
    def inputs(self) -> Tensor:
        return self.tokens[:, :-1]

    @property
    def targets(self) -> Tensor:
        return self.tokens[:, 1:]

    def to(self, device: torch.device | str) -> TokenBatch:
        tokens, weights = self.tokens.to(device, non_blocking=True), self.weights.to(device, non_blocking=True)
        return TokenBatch(tokens, weights, self.starts)

    def parts(self, count: int) -> list[TokenBatch]:
        """The batch in up to `count` equal pieces, for gradients that are gathered piece by piece."""
        pieces = zip(self.tokens.chunk(count), self.weights.chunk(count), self.starts.chunk(count), strict=True)
        return [TokenBatch(*piece) for piece in pieces]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Surprise:
    """How unlikely a model found a text: `nats`, -log p added over `tokens` predictions."""

    nats: float
    tokens: int

    def __add__(self, other: Surprise) -> Surprise:
        return Surprise(self.nats + other.nats, self.tokens + other.tokens)


class TextGeneration:
    """The loss and the figures for a model that gives logits (B, T, V) of the token after each of (B, T)."""

    name = "text-generation"
    quality = "log_likelihood"  # the figure by which checkpoints are chosen; larger is better
    logged = ("log_likelihood", "perplexity")

    def __init__(self) -> None:
        self.phases = one_phase(self.loss, through_forward=True)

    def loss(self, model: nn.Module, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Mean -log p of the answers that count, in nats per token, a scalar; and -log p of each, (B, T) float32."""
        logits = model(batch.inputs).float()
        nats = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none").view_as(batch.weights)
        return (nats * batch.weights).sum() / batch.weights.sum(), nats

    def observe(self, nats: Tensor, batch: TokenBatch) -> dict[str, Tensor]:
        """Nothing of a training batch is worth a column beside the loss, of which all other figures are functions."""
        return {}

    def score(self, surprise: Surprise, *, characters: int, size: int, words: int) -> dict[str, float]:
        """The figures of a split that has so many `characters` and `words`, and `size` bytes of UTF-8.

        `loss` in nats per token; `perplexity`, its exponential; `bits_per_character`, `bits_per_byte` and (where words
        stand between spaces) `word_perplexity`, which can be compared between tokenizers. A split's first token is
        given, and costs nothing.
        """
        loss, bits = surprise.nats / surprise.tokens, surprise.nats / math.log(2)
        spaced = {"word_perplexity": math.exp(min(surprise.nats / words, 700.0))} if 12 * words > characters else {}
        return {
            "loss": loss,
            "log_likelihood": -loss,
            "perplexity": math.exp(min(loss, 700.0)),  # beyond, no float holds it
            "bits_per_character": bits / characters,
            "bits_per_byte": bits / size,
            **spaced,
        }


@torch.no_grad()
def measure(task: TextGeneration, model: nn.Module, batches: Iterable[TokenBatch]) -> Surprise:
    """Run `model`, as it stands, over batches that are already on its device."""
    total = Surprise(0.0, 0)
    for batch in batches:
        _, nats = task.loss(model, batch)
        total += Surprise(float((nats * batch.weights).sum()), int(batch.weights.sum()))
    return total
