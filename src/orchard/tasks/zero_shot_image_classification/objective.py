"""Which sentence belongs to this picture, and which picture to this sentence?"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.batches import Batch
from orchard.training.phases import one_phase

MOST_SCALE = math.log(100)  # of logit_scale: more would let a few pairs rule the loss (arXiv:2103.00020, section 2.5)
RECALLS = (1, 5, 10)
ROWS = 1024  # queries that are compared with all candidates at once


@dataclass(frozen=True)
class PairBatch(Batch):
    """What this task learns from: row n of the pictures belongs to row n of the sentences.

    images: (B, C, H, W) float, as the model's preprocessing left them;
    tokens: (B, T) int64, with start and end (see `add_special_tokens`);
    indices: (B,) int64, the place of each pair in its split.
    """

    images: Tensor
    tokens: Tensor
    indices: Tensor


class ImageText:
    """The contrastive loss and the figures of search, for a model that gives `logits_per_image` (B, B).

    Checkpoints are chosen by the mean reciprocal rank: unlike recall at some K it moves with every place that a right
    answer gains, which tells checkpoints apart on the few hundred pairs of a small validation split, and unlike the
    loss it depends neither on the scale of the logits nor on how sure the model is of pairs that it ranks rightly.
    """

    logged = ("accuracy", "mean_reciprocal_rank", "image_to_text_recall_at_1", "text_to_image_recall_at_1")

    def __init__(self) -> None:
        self.phases = one_phase(self.loss)

    def loss(self, model: nn.Module, batch: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean of the cross-entropies along rows and along columns in nats (figure 3), and the accuracy in the batch.

        Sentences that occur several times in a batch have equal logits: the loss then cannot reach zero, but its
        gradient is that of asking for any of them alike.
        """
        if model.training:
            scale: Any = model.logit_scale
            with torch.no_grad():
                scale.clamp_(max=MOST_SCALE)
        outputs = model(batch.images, batch.tokens)
        logits = outputs.logits_per_image.float()
        own = torch.arange(len(logits), device=logits.device)
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        return loss, {"accuracy": self.accuracy(outputs.logits_per_image.detach(), batch.tokens)}

    def accuracy(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """The share of a batch's images and sentences that find their own, or one that reads the same."""
        found = [(tokens[rows] == tokens).all(1).float().mean() for rows in (logits.argmax(1), logits.argmax(0))]
        return torch.stack(found).mean()

    def compute_metrics(self, features: Features) -> dict[str, float]:
        """The figures of search in a whole split, both ways.

        Every picture and every sentence is asked for once, however many pairs it is in, and all its partners are right
        answers; its rank is that of the best of them, 1 being the first. `loss` is the mean of -log of the probability
        of the right answers among all.
        """
        pictures, of_picture = _distinct(features.picture_keys)
        texts, of_text = _distinct(features.text_keys)
        right = torch.zeros(len(pictures), len(texts), dtype=torch.bool)
        right[of_picture, of_text] = True
        seen, read = features.images[pictures], features.texts[texts]
        figures: dict[str, float] = {}
        losses, reciprocals = [], []
        for way, (ranks, loss) in {
            "image_to_text": _search(seen, read, right, features.scale),
            "text_to_image": _search(read, seen, right.T, features.scale),
        }.items():
            figures |= {f"{way}_recall_at_{k}": float((ranks <= k).double().mean()) for k in RECALLS}
            figures[f"{way}_mean_rank"] = float(ranks.double().mean())
            reciprocals.append(float(ranks.double().reciprocal().mean()))
            losses.append(loss)
        return {"loss": sum(losses) / 2, "mean_reciprocal_rank": sum(reciprocals) / 2, **figures}


@dataclass(frozen=True)
class Features:
    """What a model made of a split's N pairs, in the split's order. Equal keys mean the same picture or sentence."""

    images: Tensor  # (N, D) float32, of length one
    texts: Tensor  # (N, D) float32, of length one
    picture_keys: Tensor  # (N,) int64
    text_keys: Tensor  # (N,) int64
    indices: Tensor  # (N,) int64
    scale: float  # what cosines are multiplied by to become logits

    @classmethod
    def merge(cls, parts: Sequence[Features]) -> Features:
        """The parts of one split that several processes saw, in the split's order again."""
        names = [field.name for field in fields(cls) if field.name != "scale"]
        columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        order = columns["indices"].argsort()
        return cls(**{name: column[order] for name, column in columns.items()}, scale=parts[0].scale)


@torch.no_grad()
def embed_split(model: nn.Module, batches: Iterable[PairBatch]) -> Features:
    """Run `model` (a CLIP), as it stands, over batches that are already on its device."""
    clip: Any = model
    scale = float(clip.logit_scale.exp())
    return Features.merge(
        [
            Features(
                clip.image_features(batch.images).float().cpu(),
                clip.text_features(batch.tokens).float().cpu(),
                _keys(batch.images),
                _keys([row[: int(row.argmax()) + 1] for row in batch.tokens.cpu()]),  # without what stands behind END
                batch.indices.cpu(),
                scale,
            )
            for batch in batches
        ]
    )


def _keys(rows: Iterable[Tensor]) -> Tensor:
    """A number for each row that is the same for the same values."""
    digests = [hashlib.blake2b(row.cpu().numpy().tobytes(), digest_size=8).digest() for row in rows]
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests], dtype=torch.int64)


def _distinct(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The first row of each different key, and for each row the place of its key among those."""
    _, first, place = np.unique(keys.numpy(), return_index=True, return_inverse=True)
    return torch.from_numpy(first), torch.from_numpy(place)


def _search(queries: Tensor, candidates: Tensor, right: Tensor, scale: float) -> tuple[Tensor, float]:
    """For each query the rank of its best right candidate, and the mean loss. A tie with a wrong one counts as lost."""
    ranks, losses = [], []
    for start in range(0, len(queries), ROWS):
        wrong = ~right[start : start + ROWS]
        cosines = queries[start : start + ROWS] @ candidates.T
        best = cosines.masked_fill(wrong, -math.inf).amax(1, keepdim=True)
        ranks.append(1 + ((cosines >= best) & wrong).sum(1))
        losses.append(-(scale * cosines).log_softmax(1).masked_fill(wrong, -math.inf).logsumexp(1))
    return torch.cat(ranks), float(torch.cat(losses).mean())
