"""The names of DistilBERT's tensors in transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchard.models import Rule
from orchard.models.config_json import ConfigJson
from orchard.models.language.bert_names import (
    ACTIVATIONS,
    FEATURES,
    Table,
    block_rules,
    classifier,
    embedding_rules,
    one_of_two,
)
from orchard.models.language.bert_names import CONFIG_JSON as BERT

if TYPE_CHECKING:
    from orchard.models.language.distilbert import DistilBertConfig


def hf_names(config: DistilBertConfig) -> Table:
    """The tensors of DistilBertForMaskedLM and its kin, whose tied table has two names."""
    if config.head != "fill-mask":
        return hf_file_names(config)
    both = ("distilbert.embeddings.word_embeddings.weight", "vocab_projector.weight")
    return [Rule("embedding.tokens.weight", both, one_of_two, lambda table: (table, table)), *hf_file_names(config)]


def hf_file_names(config: DistilBertConfig) -> Table:
    """The file that save_pretrained writes: the table stands in it once."""
    model = "" if config.head == FEATURES else "distilbert."
    return [
        *embedding_rules(model + "embeddings.{}.{}"),
        *block_rules(
            model + "transformer.layer.{}.",
            ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
            "attention.out_lin",
            ("sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm"),
        ),
        ("head.tokens.transform.dense.{}", "vocab_transform.{}"),
        ("head.tokens.transform.norm.{}", "vocab_layer_norm.{}"),
        ("head.tokens.bias", "vocab_projector.bias"),
        ("head.dense.{}", "pre_classifier.{}"),
        ("head.out.{}", "classifier.{}"),
        ("head.{}", classifier(config)),
    ]


CONFIG_JSON: ConfigJson = {
    "dim": "width",
    "n_layers": "depth",
    "n_heads": "heads",
    "hidden_dim": "hidden",
    "vocab_size": "vocabulary",
    "max_position_embeddings": "context",
    "pad_token_id": "pad",
    "activation": {theirs: {"activation": ours} for theirs, ours in ACTIVATIONS.items()},
    "architectures": BERT["architectures"],
}
NAMES = {"hf_file": hf_file_names, "hf": hf_names}
