"""Which tokens were hidden, and how do two texts go together?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.masked_text import MaskedBatch
from orchard.data.masking import NOT_ASKED
from orchard.nn.text_heads import Pretraining
from orchard.training.phases import one_phase


@dataclass(frozen=True)
class Sums:
    """Sums over texts: of the `tokens` that were asked about and of the `pairs`, nats and how many were right."""

    nats: float = 0.0
    right: int = 0
    tokens: int = 0
    pair_nats: float = 0.0
    pairs_right: int = 0
    pairs: int = 0

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def metrics(self) -> dict[str, float]:
        """`loss` in nats: of a hidden token, and of a pair where there are some; `perplexity` and `accuracy` of hidden
        tokens; `pair_accuracy`."""
        nats = self.nats / max(self.tokens, 1)
        found = {"loss": nats, "perplexity": math.exp(min(nats, 700.0)), "accuracy": self.right / max(self.tokens, 1)}
        if self.pairs:
            found["loss"] += self.pair_nats / self.pairs
            found["pair_accuracy"] = self.pairs_right / self.pairs
        return found


class MaskedLanguage:
    """The loss and the metrics of a model with a head for hidden tokens; `pairs`: and one for pairs."""

    logged = ("accuracy",)

    def __init__(self, pairs: bool) -> None:
        self.phases = one_phase(self.loss, through_forward=not pairs)

    def loss(self, model: nn.Module, batch: MaskedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over hidden tokens, in nats, and that over pairs added to it."""
        tokens, labels, pair = answers(model, batch)
        loss = F.cross_entropy(tokens.float(), labels)
        if pair is not None:
            loss = loss + F.cross_entropy(pair.float(), batch.pairs, ignore_index=NOT_ASKED)
        return loss, {"accuracy": (tokens.detach().argmax(-1) == labels).float().mean()}


def answers(model: nn.Module, batch: MaskedBatch) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits (N, V) and labels (N,) of the hidden tokens, and logits (B, 2) of the pairs, if any are asked about."""
    asked = batch.labels != NOT_ASKED
    result = model(batch.tokens.values, batch.tokens.mask, batch.segments, asked)
    labels = batch.labels[asked]
    if isinstance(result, Pretraining):
        return result.tokens, labels, result.pair if bool((batch.pairs != NOT_ASKED).any()) else None
    return result, labels, None


@torch.no_grad()
def measure(model: nn.Module, batches: Iterable[MaskedBatch]) -> Sums:
    """Run `model`, as it stands, over batches that are already on its device."""
    total = Sums()
    for batch in batches:
        tokens, labels, pair = answers(model, batch)
        nats = F.cross_entropy(tokens.float(), labels, reduction="sum")
        right = int((tokens.argmax(-1) == labels).sum())
        found = Sums(float(nats), right, len(labels))
        if pair is not None:
            asked = int((batch.pairs != NOT_ASKED).sum())
            pair_nats = F.cross_entropy(pair.float(), batch.pairs, ignore_index=NOT_ASKED, reduction="sum")
            found += Sums(
                pair_nats=float(pair_nats), pairs_right=int((pair.argmax(-1) == batch.pairs).sum()), pairs=asked
            )
        total += found
    return total
