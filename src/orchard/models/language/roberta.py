"""RoBERTa (Liu et al. 2019, arXiv:1907.11692) and XLM-R (Conneau et al. 2019, arXiv:1911.02116).

BERT without pairs and segments, trained for longer on more text, with masks drawn anew each time. Positions are counted
from the row behind that of the padding. Legend: B texts, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.language import bert
from orchard.models.language.bert import Bert, BertConfig
from orchard.models.language.roberta_names import CONFIG_JSON, NAMES, NOT_WEIGHTS
from orchard.models.language.text_encoder import ROBERTA, example_texts
from orchard.nn.text_heads import PooledClasses, TokenLogits, Transform

PADDING, FIRST = 1, 2  # rows of the table of positions: of the padding, and of the first token


@dataclass(frozen=True)
class RobertaConfig(BertConfig):
    vocabulary: int = 50265
    pad: int = 1
    segments: int = 1  # one kind, which is added everywhere
    norm_eps: float = 1e-5
    pairs: bool = False

    @property
    def pooled(self) -> bool:
        """The layer behind the first token belongs to the head for classes; masked words know none."""
        return False


class Roberta(Bert):
    """Tokens (B, T) int64 to what the head says."""

    template: ClassVar[tuple[str, str]] = ROBERTA

    def make_tables(self, width: int) -> dict[str, nn.Embedding]:
        positions = nn.Embedding(self.config.context + FIRST, width, padding_idx=PADDING)
        return {**super().make_tables(width), "positions": positions}

    def make_head(self) -> nn.Module:
        c = self.config
        if c.head == "text-classification":
            return PooledClasses(c.width, c.num_classes, nn.Tanh(), dropout=c.dropout)
        return super().make_head()

    def make_token_logits(self) -> TokenLogits:
        """With GELU, whatever the blocks have."""
        c = self.config
        return TokenLogits(c.vocabulary, Transform(c.width, c.width, nn.GELU(), self.make_norm(c.width)))

    def embed(self, tokens: Tensor, mask: Tensor, segments: Tensor) -> Tensor:
        counted = mask.long().cumsum(1) * mask + PADDING
        return self.embedding(tokens, {"positions": counted, "segments": segments})


def infer_config(config: Any, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """As BERT's; the table of positions has rows that no token has."""
    found = bert.infer_config(config, source, lookup)
    return {**found, "context": found["context"] - FIRST} if "context" in found else found


def example(config: BertConfig, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Ids at random without segments; every second text is a quarter padding."""
    found = example_texts(config, count, generator)
    return {"tokens": found["tokens"], "mask": found["mask"]}


VARIANTS = {
    # ours: four thousand pairs of bytes, for a laptop
    "roberta_nano": RobertaConfig(128, 3, 4, 512, vocabulary=4096, context=128, dropout=0.0, attention_dropout=0.0),
    "roberta_base": RobertaConfig(768, 12, 12, 3072),
    "roberta_large": RobertaConfig(1024, 24, 16, 4096),
    "xlm_roberta_base": RobertaConfig(768, 12, 12, 3072, vocabulary=250002),
    "xlm_roberta_large": RobertaConfig(1024, 24, 16, 4096, vocabulary=250002),
}
LANDMARK = Landmark(
    model=Roberta,
    variants=VARIANTS,
    names=NAMES,
    infer_config=infer_config,
    not_weights=NOT_WEIGHTS,
    config_json=CONFIG_JSON,
    example=example,
)
