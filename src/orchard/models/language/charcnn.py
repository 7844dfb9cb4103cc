"""Char-CNN (Zhang, Zhao and LeCun 2015, "Character-level convolutional networks for text classification",
arXiv:1509.01626)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.language.text_encoder import PLAIN, check_text, example_texts

KERNELS = (7, 7, 3, 3, 3, 3)  # of the six convolutions
POOLED = (True, True, False, False, False, True)  # which of them a maximum over three places follows


@dataclass(frozen=True)
class CharCNNConfig:
    vocabulary: int = 70  # characters
    channels: int = 256
    hidden: int = 1024
    context: int = 1014  # characters of a text; the fully connected layers are for exactly so many
    dropout: float = 0.5
    pad: int = 0
    std: float = 0.05  # of fresh weights
    head: str = "text-classification"
    num_classes: int = 2

    def __post_init__(self) -> None:
        if places(self.context) < 1:
            raise ValueError(
                f"context is {self.context}: six convolutions leave nothing of a text so short; expected 112+"
            )

    @property
    def fields(self) -> int:
        """Places that are left after the convolutions."""
        return places(self.context)


def places(length: int) -> int:
    for kernel, pooled in zip(KERNELS, POOLED, strict=True):
        length = (length - kernel + 1) // (3 if pooled else 1)
    return length


class CharCNN(nn.Module):
    """Characters, one-hot, through six convolutions and three fully connected layers.

    tokens (B, T) int64 → logits (B, num_classes). Every text is continued to `context` characters by zeros; what is
    longer is cut before.
    """

    template: ClassVar[tuple[str, str]] = PLAIN
    head_name: ClassVar[str] = "head"

    def __init__(self, config: CharCNNConfig):
        super().__init__()
        if config.head != "text-classification":
            raise ValueError(f"char-CNN has one vector for a text, and no head for {config.head}")
        self.config = config
        widths = [config.vocabulary, *[config.channels] * len(KERNELS)]
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, kernel)
            for before, after, kernel in zip(widths[:-1], widths[1:], KERNELS, strict=True)
        )
        self.fc1 = nn.Linear(config.channels * config.fields, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.hidden, config.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.normal_(module.weight, std=config.std)

    def features(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """(B, hidden): what the second fully connected layer gives."""
        check_text(self.config, tokens, mask, segments)
        there = tokens != self.config.pad if mask is None else mask
        x = F.one_hot(tokens, self.config.vocabulary).to(self.fc1.weight.dtype) * there[:, :, None]
        x = F.pad(x.transpose(1, 2), (0, self.config.context - tokens.shape[1]))
        for conv, pooled in zip(self.convs, POOLED, strict=True):
            x = F.relu(conv(x))
            x = F.max_pool1d(x, 3) if pooled else x
        x = self.dropout(F.relu(self.fc1(x.flatten(1))))
        return self.dropout(F.relu(self.fc2(x)))

    def forward(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        return self.head(self.features(tokens, mask, segments))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head."""
        return [*((f"convs.{n}.",) for n in range(len(KERNELS))), ("fc1.",), ("fc2.",), ("head.",)]


VARIANTS = {
    "charcnn_small": CharCNNConfig(),
    "charcnn_large": CharCNNConfig(channels=1024, hidden=2048, std=0.02),
    # ours: shorter texts and fewer channels, for some thousand of them
    "charcnn_nano": CharCNNConfig(channels=64, hidden=128, context=256),
}
LANDMARK = Landmark(model=CharCNN, variants=VARIANTS, example=example_texts)
