"""Where does an answer begin and end?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.questions.encoding import NO_ANSWER, SpanBatch
from orchard.training.phases import one_phase


@dataclass(frozen=True)
class WindowSpan:
    """The best answer in a window: its tokens, and logits of this answer, of no answer, and of all together."""

    index: int
    begin: int
    end: int
    best: float
    none: float
    total: float
    loss: float


class SpanObjective:
    """The loss of a model that scores every token as the first and the last of an answer, (B, T, 2).

    The loss is the mean of -log p of both ends, over the tokens of the text and the one that stands for no answer.
    """

    logged = ("exact_match", "f1")

    def __init__(self) -> None:
        self.phases = one_phase(self.loss, through_forward=True)

    def loss(self, model: nn.Module, batch: SpanBatch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.losses(self.scores(model, batch), batch).mean(), {}

    def scores(self, model: nn.Module, batch: SpanBatch) -> Tensor:
        """(B, T, 2) float32, without what can be no answer."""
        found = model(batch.tokens.values, batch.tokens.mask, batch.segments).float()
        return found.masked_fill(~batch.allowed[..., None], -torch.inf)  # type: ignore[no-any-return]

    def losses(self, scores: Tensor, batch: SpanBatch) -> Tensor:
        """(B,), in nats."""
        ends = [F.cross_entropy(scores[..., n], batch.spans[:, n], reduction="none") for n in (0, 1)]
        return (ends[0] + ends[1]) / 2


@torch.no_grad()
def best_spans(
    objective: SpanObjective, model: nn.Module, batches: Iterable[SpanBatch], longest: int
) -> list[WindowSpan]:
    """Run `model`, as it stands, over batches that are already on its device: the best answer of each window, of at
    most `longest` tokens."""
    found = []
    for batch in batches:
        scores = objective.scores(model, batch)
        losses, total = objective.losses(scores, batch), scores.logsumexp(1).sum(1)
        none = scores[:, NO_ANSWER].sum(1)
        scores[:, NO_ANSWER] = -torch.inf
        begin, end = scores.unbind(-1)
        T = scores.shape[1]
        both = begin[:, :, None] + end[:, None, :]  # (B, T, T)
        order = torch.ones(T, T, dtype=torch.bool, device=scores.device)
        both = both.masked_fill(~(order.triu() & order.tril(longest - 1)), -torch.inf)
        best, at = both.flatten(1).max(1)
        columns = (batch.indices, at // T, at % T, best, none, total, losses)
        found += [WindowSpan(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    return found
