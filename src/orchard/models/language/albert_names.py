"""The names of ALBERT's tensors in transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchard.models.config_json import ConfigJson, only
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
    from orchard.models.language.albert import AlbertConfig


def hf_names(config: AlbertConfig) -> Table:
    """The tensors of AlbertForPreTraining and its kin, whose tied table and bias have two names each."""
    return [*tied("predictions.", "albert.embeddings.word_embeddings.weight", config), *hf_file_names(config)]


def hf_file_names(config: AlbertConfig) -> Table:
    """The file that save_pretrained writes, and those of the Hub: what is tied stands in it once."""
    model = "" if config.head == FEATURES else "albert."
    return [
        *embedding_rules(model + "embeddings.{}.{}"),
        ("embedding.project.{}", model + "encoder.embedding_hidden_mapping_in.{}"),
        *block_rules(
            model + "encoder.albert_layer_groups.{}.albert_layers.0.",
            ("attention.query", "attention.key", "attention.value"),
            "attention.dense",
            ("attention.LayerNorm", "ffn", "ffn_output", "full_layer_layer_norm"),
        ),
        ("pooler.dense.{}", model + "pooler.{}"),
        *masked_rules("predictions.", "dense", "LayerNorm"),
        ("head.pair.{}", "sop_classifier.classifier.{}"),
        ("head.{}", classifier(config)),
    ]


NOT_WEIGHTS = dict.fromkeys(("hf_file", "hf"), ("*.position_ids",))
CONFIG_JSON: ConfigJson = {
    **bert_names.CONFIG_JSON,
    "embedding_size": "embedding",
    "num_hidden_groups": "groups",
    "inner_group_num": only(1),
}
NAMES = {"hf_file": hf_file_names, "hf": hf_names}
