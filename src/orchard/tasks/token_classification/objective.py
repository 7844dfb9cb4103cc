"""Which tag has each word?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.tagged_text.encoding import IGNORED
from orchard.data.text_inputs import TextBatch
from orchard.nn.crf import LinearChainCRF
from orchard.training.phases import one_phase


@dataclass(frozen=True)
class WindowTags:
    """What a model says of the N words of one window: the number of each tag, its probability, and that of the true
    tag; and the loss of all of them together, in nats."""

    index: int
    tags: list[int]
    scores: list[float]
    truth: list[float]
    loss: float


class TokenObjective:
    """The loss and the metrics of a model that scores the tags of every token.

    The loss is -log p of the tags, per word: of each word alone, or where the model has a CRF of the whole sequence.
    """

    def __init__(self, *, plain: bool):
        self.logged = ("accuracy",) if plain else ("accuracy", "f1")
        self.phases = one_phase(self.loss, through_forward=True)

    def loss(self, model: nn.Module, batch: TextBatch) -> tuple[Tensor, dict[str, Tensor]]:
        scores, asked, tags = words_of(self.scores(model, batch), batch.labels)
        crf = crf_of(model)
        if crf is None:
            loss = F.cross_entropy(scores[asked].float(), tags[asked])
        else:
            loss = -crf.log_likelihood(scores, asked, tags).sum() / asked.sum()
        right = (scores.detach().argmax(-1) == tags)[asked].float().mean()
        return loss, {"accuracy": right}

    def scores(self, model: nn.Module, batch: TextBatch) -> Tensor:
        """(B, T, K)."""
        found: Tensor = model(batch.tokens.values, batch.tokens.mask, batch.segments)
        return found


def crf_of(model: nn.Module) -> LinearChainCRF | None:
    """The CRF of a model that has one, also where it is wrapped to be trained on several devices."""
    inner = getattr(model, "module", model)
    found = getattr(inner, "crf", None)
    return found if isinstance(found, LinearChainCRF) else None


def words_of(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of scores (B, T, K) of tokens with labels (B, T) those of words, which have one: scores (B, W, K), a mask (B, W)
    that is true at words, and tags (B, W), 0 in the padding."""
    asked = labels != IGNORED
    count = int(asked.sum(1).max())
    order = asked.long().argsort(dim=1, descending=True, stable=True)[:, :count]
    found = scores.gather(1, order[..., None].expand(-1, -1, scores.shape[-1]))
    return found, asked.gather(1, order), labels.gather(1, order).clamp(min=0)


@torch.no_grad()
def tag_windows(objective: TokenObjective, model: nn.Module, batches: Iterable[TextBatch]) -> list[WindowTags]:
    """Run `model`, as it stands, over batches that are already on its device. Tags are the best sequence of a CRF."""
    found = []
    crf = crf_of(model)
    for batch in batches:
        scores, asked, truth = words_of(objective.scores(model, batch), batch.labels)
        if crf is None:
            probabilities = scores.float().softmax(-1)
            tags = scores.argmax(-1)
            losses = -probabilities.gather(-1, truth[..., None])[..., 0].log().masked_fill(~asked, 0).sum(1)
        else:
            probabilities, tags = crf.marginals(scores, asked), crf.decode(scores, asked)
            losses = -crf.log_likelihood(scores, asked, truth)
        of_tags, of_truth = (probabilities.gather(-1, one[..., None])[..., 0] for one in (tags, truth))
        rows = zip(batch.indices.tolist(), asked.sum(1).tolist(), tags.tolist(), of_tags.tolist(), of_truth.tolist(),
                   losses.tolist(), strict=True)  # fmt: skip
        found += [WindowTags(n, row[:k], p[:k], q[:k], loss) for n, k, row, p, q, loss in rows]
    return found


def join_windows(windows: Sequence[WindowTags], sentences: Sequence[int], count: int) -> list[WindowTags]:
    """What is said of each of `count` sentences; `sentences` are the numbers of those that windows are of, by index."""
    found = [WindowTags(number, [], [], [], 0.0) for number in range(count)]
    for one in sorted(windows, key=lambda one: one.index):
        n = sentences[one.index]
        before = found[n]
        found[n] = WindowTags(
            n, before.tags + one.tags, before.scores + one.scores, before.truth + one.truth, before.loss + one.loss
        )
    return found
