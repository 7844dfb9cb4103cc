"""DistilBERT (Sanh et al. 2019, "DistilBERT, a distilled version of BERT", arXiv:1910.01108).

Half of BERT's blocks, taught by BERT, and neither segments nor a pooling layer. Legend: B texts, T tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from orchard.models import Landmark
from orchard.models.language.bert import Bert, BertConfig, infer_config
from orchard.models.language.distilbert_names import CONFIG_JSON, NAMES
from orchard.models.language.roberta import example
from orchard.models.language.text_encoder import UNMARKED
from orchard.nn.text_heads import PooledClasses


@dataclass(frozen=True)
class DistilBertConfig(BertConfig):
    segments: int = 0
    pairs: bool = False

    @property
    def pooled(self) -> bool:
        """The layer behind the first token belongs to the head for classes."""
        return False


class DistilBert(Bert):
    """Tokens (B, T) int64 to what the head says; segments are not looked at."""

    template: ClassVar[tuple[str, str]] = UNMARKED

    def make_tables(self, width: int) -> dict[str, nn.Embedding]:
        return {"positions": nn.Embedding(self.config.context, width)}

    def make_head(self) -> nn.Module:
        c = self.config
        if c.head == "text-classification":
            return PooledClasses(c.width, c.num_classes, nn.ReLU(), dropout=c.dropout)
        return super().make_head()


VARIANTS = {
    # ours: four thousand pieces of words, for a laptop
    "distilbert_nano": DistilBertConfig(
        128, 2, 4, 512, vocabulary=4096, context=128, dropout=0.0, attention_dropout=0.0
    ),
    "distilbert_base": DistilBertConfig(768, 6, 12, 3072),
    "distilbert_base_cased": DistilBertConfig(768, 6, 12, 3072, vocabulary=28996),
    "distilbert_base_multilingual": DistilBertConfig(768, 6, 12, 3072, vocabulary=119547),
}
LANDMARK = Landmark(
    model=DistilBert,
    variants=VARIANTS,
    names=NAMES,
    infer_config=infer_config,
    config_json=CONFIG_JSON,
    example=example,
)
