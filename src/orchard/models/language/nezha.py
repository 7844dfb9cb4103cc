"""NEZHA (Wei et al. 2019, "Neural Contextualized Representation for Chinese Language Understanding", arXiv:1909.00204).

BERT without a table of positions: every attention knows how far apart two tokens are, by a sinusoid that nothing has
learned, so that longer texts than those of the training can be read. Legend: B texts, T tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from orchard.models import Landmark
from orchard.models.config_json import ConfigJson, only
from orchard.models.language import bert_names
from orchard.models.language.bert import Bert, BertConfig, infer_config
from orchard.models.language.bert_names import Table, bert_rules, tied
from orchard.models.language.text_encoder import example_texts
from orchard.nn.functional_relative_attention import FunctionalRelativeAttention


@dataclass(frozen=True)
class NezhaConfig(BertConfig):
    vocabulary: int = 21128
    distance: int = 64  # tokens either way from which on distances are the same

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distance < 1 or self.width // self.heads % 2:
            raise ValueError(f"distance is {self.distance}, a head {self.width // self.heads} wide; expected 1 or more "
                             "and an even width, as sines and cosines come in pairs")  # fmt: skip


class Nezha(Bert):
    """Tokens (B, T) int64 to what the head says."""

    config: NezhaConfig

    def make_tables(self, width: int) -> dict[str, nn.Embedding]:
        return {"segments": nn.Embedding(self.config.segments, width)}

    def make_attention(self) -> nn.Module:
        c = self.config
        return FunctionalRelativeAttention(
            c.width, c.heads, distance=c.distance, dropout=c.attention_dropout, out_dropout=c.dropout
        )  # fmt: skip


def huawei_names(config: NezhaConfig) -> Table:
    """The authors' code in PyTorch, whose tied table has two names."""
    both = tied("cls.predictions.", "bert.embeddings.word_embeddings.weight", config)
    return [*both[:1], *huawei_file_names(config)]


def huawei_file_names(config: NezhaConfig) -> Table:
    """The same with the table once."""
    return bert_rules(config, "bert.")


VARIANTS = {
    # ours: four thousand characters and pieces, for a laptop
    "nezha_nano": NezhaConfig(
        128, 3, 4, 512, vocabulary=4096, context=128, dropout=0.0, attention_dropout=0.0, distance=32
    ),
    "nezha_base": NezhaConfig(768, 12, 12, 3072),
    "nezha_large": NezhaConfig(1024, 24, 16, 4096),
}
CONFIG_JSON: ConfigJson = {
    **{key: rule for key, rule in bert_names.CONFIG_JSON.items() if key != "position_embedding_type"},
    "max_relative_position": "distance",
    "use_relative_position": only(True),
}
LANDMARK = Landmark(
    model=Nezha,
    variants=VARIANTS,
    names={"huawei_file": huawei_file_names, "huawei": huawei_names},
    infer_config=infer_config,
    not_weights=dict.fromkeys(("huawei_file", "huawei"), ("*.position_ids",)),
    config_json=CONFIG_JSON,
    example=example_texts,
)
