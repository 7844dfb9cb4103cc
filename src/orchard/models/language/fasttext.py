"""fastText's classifier (Joulin et al. 2016, "Bag of tricks for efficient text classification", arXiv:1607.01759)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.language.text_encoder import PLAIN, check_text, example_texts

PRIME = 116_049_371  # by which fastText mixes the hash of one word with that of the next


@dataclass(frozen=True)
class FastTextConfig:
    vocabulary: int = 100_000
    width: int = 10
    ngrams: int = 2  # words in the longest n-gram; 1: words alone
    buckets: int = 2_000_000  # of n-grams
    dropout: float = 0.0
    context: int = 1024
    pad: int = 0
    head: str = "text-classification"
    num_classes: int = 2


class FastText(nn.Module):
    """The mean of the vectors of all words and n-grams of words, and a linear layer.

    tokens (B, T) int64 → logits (B, num_classes). n-grams share `buckets` vectors: their ids are hashed together.
    """

    template: ClassVar[tuple[str, str]] = PLAIN
    head_name: ClassVar[str] = "head"

    def __init__(self, config: FastTextConfig):
        super().__init__()
        if config.head != "text-classification":
            raise ValueError(f"fastText has one vector for a text, and no head for {config.head}")
        self.config = config
        self.token = nn.Embedding(config.vocabulary, config.width, padding_idx=config.pad)
        self.ngram = nn.Embedding(config.buckets, config.width) if config.ngrams > 1 else None
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.width, config.num_classes)
        for table in filter(None, (self.token, self.ngram)):
            nn.init.uniform_(table.weight, -1 / config.width, 1 / config.width)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def features(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """(B, width): the mean over words and n-grams."""
        check_text(self.config, tokens, mask, segments)
        there = tokens != self.config.pad if mask is None else mask
        total = (self.token(tokens) * there[:, :, None]).sum(1)
        count = there.sum(1, keepdim=True)
        mixed, whole = tokens, there
        for n in range(1, self.config.ngrams if self.ngram is not None else 1):
            following = F.pad(tokens[:, n:], (0, n))
            whole = whole & F.pad(there[:, n:], (0, n))
            mixed = (mixed * PRIME + following) & 0x7FFFFFFF
            total = total + (self.ngram(mixed % self.config.buckets) * whole[:, :, None]).sum(1)  # type: ignore[misc]
            count = count + whole.sum(1, keepdim=True)
        return total / count.clamp_min(1)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        return self.head(self.dropout(self.features(tokens, mask, segments)))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head."""
        return [("token.", "ngram."), ("head.",)]


VARIANTS = {
    "fasttext": FastTextConfig(),
    # ours: fewer buckets, for some thousand texts
    "fasttext_nano": FastTextConfig(vocabulary=8000, width=32, buckets=50_000, dropout=0.2),
}
LANDMARK = Landmark(model=FastText, variants=VARIANTS, example=example_texts)
