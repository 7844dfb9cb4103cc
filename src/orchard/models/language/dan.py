"""Deep averaging network (Iyyer et al. 2015, "Deep unordered composition rivals syntactic methods", ACL P15-1162)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.language.text_encoder import PLAIN, check_text, example_texts
from orchard.nn.text_pooling import masked_mean


@dataclass(frozen=True)
class DANConfig:
    vocabulary: int = 20000
    width: int = 300  # of word vectors and of the layers above
    depth: int = 3  # layers above the mean; 0: averaged word vectors alone
    word_dropout: float = 0.3  # of whole words, in training
    context: int = 1024
    pad: int = 0
    head: str = "text-classification"
    num_classes: int = 2


class DAN(nn.Module):
    """The mean of the word vectors of a text, and some layers on it, tokens (B, T) int64 → logits (B, num_classes).

    In training each word is left out of the mean with a probability of `word_dropout` (section 3.1); a text that would
    lose all its words keeps them.
    """

    template: ClassVar[tuple[str, str]] = PLAIN
    head_name: ClassVar[str] = "head"

    def __init__(self, config: DANConfig):
        super().__init__()
        if config.head != "text-classification":
            raise ValueError(f"a mean of words has one vector for a text, and no head for {config.head}")
        self.config = config
        self.token = nn.Embedding(config.vocabulary, config.width, padding_idx=config.pad)
        self.layers = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.depth))
        self.head = nn.Linear(config.width, config.num_classes)

    def features(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """(B, width): what the last layer makes of the mean."""
        check_text(self.config, tokens, mask, segments)
        there = tokens != self.config.pad if mask is None else mask
        if self.training and self.config.word_dropout:
            kept = there & (torch.rand(there.shape, device=there.device) >= self.config.word_dropout)
            there = torch.where(kept.any(1, keepdim=True), kept, there)
        x = masked_mean(self.token(tokens), there)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x

    def forward(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        return self.head(self.features(tokens, mask, segments))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head."""
        return [("token.",), *((f"layers.{n}.",) for n in range(len(self.layers))), ("head.",)]


VARIANTS = {
    "dan": DANConfig(),
    "averaged_words": DANConfig(depth=0, word_dropout=0.0),
    # ours: smaller vectors, for some thousand texts
    "dan_nano": DANConfig(vocabulary=8000, width=100, depth=2),
}
LANDMARK = Landmark(model=DAN, variants=VARIANTS, example=example_texts)
