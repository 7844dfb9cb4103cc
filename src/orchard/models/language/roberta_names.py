"""The names of RoBERTa's tensors in transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchard.models.config_json import ConfigJson
from orchard.models.language import bert_names
from orchard.models.language.bert_names import (
    FEATURES,
    Table,
    block_rules,
    classifier,
    embedding_rules,
    masked_rules,
    tied,
)

if TYPE_CHECKING:
    from orchard.models.language.roberta import RobertaConfig


def hf_names(config: RobertaConfig) -> Table:
    """The tensors of RobertaForMaskedLM and its kin, whose tied table and bias have two names each."""
    return [*tied("lm_head.", "roberta.embeddings.word_embeddings.weight", config), *hf_file_names(config)]


def hf_file_names(config: RobertaConfig) -> Table:
    """The file that save_pretrained writes, and those of the Hub: what is tied stands in it once."""
    model = "" if config.head == FEATURES else "roberta."
    return [
        *embedding_rules(model + "embeddings.{}.{}"),
        *block_rules(model + "encoder.layer.{}."),
        *masked_rules("lm_head.", "dense", "layer_norm"),
        ("head.dense.{}", "classifier.dense.{}"),
        ("head.out.{}", "classifier.out_proj.{}"),
        ("head.{}", classifier(config)),
    ]


# A pooling layer that no training has reached, and buffers of older versions.
NOT_WEIGHTS = dict.fromkeys(("hf_file", "hf"), ("*pooler.dense.*", "*.position_ids"))
CONFIG_JSON: ConfigJson = {
    **bert_names.CONFIG_JSON,
    "max_position_embeddings": lambda rows, table: {"context": int(rows) - 2},
}
NAMES = {"hf_file": hf_file_names, "hf": hf_names}
