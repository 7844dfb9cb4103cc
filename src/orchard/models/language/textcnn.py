"""TextCNN (Kim 2014, "Convolutional neural networks for sentence classification", arXiv:1408.5882)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.language.text_encoder import PLAIN, check_text, example_texts
from orchard.nn.text_pooling import masked_max


@dataclass(frozen=True)
class TextCNNConfig:
    vocabulary: int = 20000
    width: int = 300  # of word vectors
    filters: int = 100  # of each window
    windows: tuple[int, ...] = (3, 4, 5)  # words that a filter sees
    dropout: float = 0.5
    max_norm: float = 3.0  # of the weights of a class (section 2.1); 0: as large as they like
    context: int = 512
    pad: int = 0
    head: str = "text-classification"
    num_classes: int = 2


class TextCNN(nn.Module):
    """Filters over a few words each, the largest response of each filter over the text, and a linear layer.

    tokens (B, T) int64 → logits (B, num_classes). The text is padded by window - 1 words on both sides, as the
    published code does, so that a filter sees the first and the last word at each of its places.
    """

    template: ClassVar[tuple[str, str]] = PLAIN
    head_name: ClassVar[str] = "head"

    def __init__(self, config: TextCNNConfig):
        super().__init__()
        if config.head != "text-classification":
            raise ValueError(f"TextCNN has one vector for a text, and no head for {config.head}")
        self.config = config
        self.token = nn.Embedding(config.vocabulary, config.width, padding_idx=config.pad)
        self.convs = nn.ModuleList(
            nn.Conv1d(config.width, config.filters, window, padding=window - 1) for window in config.windows
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.filters * len(config.windows), config.num_classes)
        nn.init.uniform_(self.token.weight, -0.25, 0.25)
        with torch.no_grad():
            self.token.weight[config.pad] = 0

    def features(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """(B, filters · windows): the largest response of each filter, over places that touch a word."""
        check_text(self.config, tokens, mask, segments)
        there = tokens != self.config.pad if mask is None else mask
        x = (self.token(tokens) * there[:, :, None]).transpose(1, 2)
        pooled = []
        for window, conv in zip(self.config.windows, self.convs, strict=True):
            touched = F.pad(there, (0, window - 1)) if window > 1 else there
            for shift in range(1, window):
                touched = touched | F.pad(there, (shift, window - 1 - shift))
            pooled.append(masked_max(F.relu(conv(x)).transpose(1, 2), touched))
        return torch.cat(pooled, dim=1)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        return self.head(self.dropout(self.features(tokens, mask, segments)))

    @torch.no_grad()
    def project(self) -> None:
        """The weights of a class are scaled back to `max_norm` where they are longer."""
        if self.config.max_norm:
            self.head.weight.copy_(torch.renorm(self.head.weight, 2, 0, self.config.max_norm))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head."""
        return [("token.",), ("convs.",), ("head.",)]


VARIANTS = {
    "textcnn": TextCNNConfig(),
    # ours: word vectors and filters that learn from some thousand sentences
    "textcnn_nano": TextCNNConfig(vocabulary=8000, width=100, filters=64),
}
LANDMARK = Landmark(model=TextCNN, variants=VARIANTS, example=example_texts)
