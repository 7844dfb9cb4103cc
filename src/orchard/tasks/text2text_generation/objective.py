"""Which text belongs to this one?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

import torch
from torch import Tensor, nn

from orchard.data.pairs import PairBatch
from orchard.training.phases import one_phase


@dataclass(frozen=True)
class Sums:
    """What is added up over the predictions of a split: the loss, -log p in nats, and their number."""

    loss: float
    nats: float
    tokens: int

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class Text2Text:
    """The loss and the metrics for a model that gives logits (B, T, V) of the token after each of a target's (B, T).

    `label_smoothing` ε: the loss is the cross-entropy to (1 - ε) on the target and ε spread over the whole vocabulary
    (Szegedy et al. 2015, arXiv:1512.00567, section 7; Vaswani et al. 2017, section 5.4).
    """

    logged = ("nll", "bleu")

    def __init__(self, label_smoothing: float):
        self.label_smoothing = label_smoothing
        self.phases = one_phase(self.loss, through_forward=True)

    def loss(self, model: nn.Module, batch: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Both are means per token that is no padding: the loss, and `nll`, -log p of the target alone."""
        losses, nats = self.per_token(model, batch)
        return losses.mean(), {"nll": nats.mean().detach()}

    def per_token(self, model: nn.Module, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """The loss and -log p of each of the N tokens that are no padding, (N,) float32."""
        logits = model(batch.source.values, batch.inputs, batch.source.mask)
        log_probs = logits[batch.weights].float().log_softmax(-1)
        nats = -log_probs.gather(1, batch.targets[batch.weights][:, None])[:, 0]
        if not self.label_smoothing:
            return nats, nats
        return torch.lerp(nats, -log_probs.mean(-1), self.label_smoothing), nats


@torch.no_grad()
def measure(objective: Text2Text, model: nn.Module, batches: Iterable[PairBatch]) -> Sums:
    """Run `model`, as it stands, over batches that are already on its device."""
    total = Sums(0.0, 0.0, 0)
    for batch in batches:
        losses, nats = objective.per_token(model, batch)
        total += Sums(float(losses.sum()), float(nats.sum()), len(nats))
    return total


def bleu(texts: Sequence[str], references: Sequence[str], language: str) -> float:
    """BLEU of a whole split, 0 to 100, as sacreBLEU computes it (Post 2018, arXiv:1804.08771).

    Texts are cased and as people write them; it cuts them into words itself ("13a", of Chinese and Japanese into
    characters).
    """
    from sacrebleu.metrics.bleu import BLEU

    tokenize = {"zh": "zh", "ja": "char"}.get(language, "13a")
    return float(BLEU(tokenize=tokenize).corpus_score(list(texts), [list(references)]).score)
