"""ALBERT (Lan et al. 2019, "ALBERT: A Lite BERT for Self-supervised Learning", arXiv:1909.11942).

BERT with the same block over and over, and with a narrow table of tokens that one layer widens. Of two texts it learns
in which order they come. Legend: B texts, T tokens, E width of the table, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.language.albert_names import CONFIG_JSON, NAMES, NOT_WEIGHTS
from orchard.models.language.bert import ACTIVATIONS, Bert, BertConfig, infer_config
from orchard.models.language.text_encoder import example_texts
from orchard.nn.text_embedding import TextEmbedding
from orchard.nn.text_heads import TokenLogits, Transform


@dataclass(frozen=True)
class AlbertConfig(BertConfig):
    vocabulary: int = 30000
    embedding: int = 128  # width of the tables
    groups: int = 1  # of blocks side by side that have their weights in common
    dropout: float = 0.0  # as in version 2
    attention_dropout: float = 0.0
    activation: Literal["gelu", "tanh-gelu", "relu"] = "tanh-gelu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embedding < 1 or not 1 <= self.groups <= self.depth:
            raise ValueError(f"embedding is {self.embedding} and groups {self.groups}, expected 1 or more, and groups "
                             f"no more than the depth, {self.depth}")  # fmt: skip

    @property
    def distinct(self) -> int:
        return self.groups


class Albert(Bert):
    """Tokens (B, T) int64 to what the head says."""

    config: AlbertConfig
    pair_question: ClassVar[str] = "sentence-order"

    def make_embedding(self) -> TextEmbedding:
        c = self.config
        tokens = nn.Embedding(c.vocabulary, c.embedding, padding_idx=c.pad)
        return TextEmbedding(
            tokens, self.make_tables(c.embedding), self.make_norm(c.embedding), dropout=c.dropout,
            project=nn.Linear(c.embedding, c.width),
        )  # fmt: skip

    def make_token_logits(self) -> TokenLogits:
        """Back to the width of the table first."""
        c = self.config
        transform = Transform(c.width, c.embedding, ACTIVATIONS[c.activation](), self.make_norm(c.embedding))
        return TokenLogits(c.vocabulary, transform)

    def encode(self, x: Tensor, sees: Tensor) -> Tensor:
        c = self.config
        for n in range(c.depth):
            x = self.blocks[n * c.groups // c.depth](x, sees)
        return x


VARIANTS = {
    # ours: four thousand pieces of words, for a laptop
    "albert_nano": AlbertConfig(192, 4, 4, 768, vocabulary=4096, context=128, embedding=64),
    "albert_base": AlbertConfig(768, 12, 12, 3072),
    "albert_large": AlbertConfig(1024, 24, 16, 4096),
    "albert_xlarge": AlbertConfig(2048, 24, 16, 8192),
    "albert_xxlarge": AlbertConfig(4096, 12, 64, 16384),
}
LANDMARK = Landmark(
    model=Albert,
    variants=VARIANTS,
    names=NAMES,
    infer_config=infer_config,
    not_weights=NOT_WEIGHTS,
    config_json=CONFIG_JSON,
    example=example_texts,
)
