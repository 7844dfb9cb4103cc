"""The names of T5's tensors in transformers' T5ForConditionalGeneration, built or from a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from orchard.errors import OrchardError
from orchard.models import Rule
from orchard.models.config_json import ConfigJson

if TYPE_CHECKING:
    from orchard.models.language.t5 import T5Config

Table = list[Rule | tuple[str, str]]
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


def hf_names(config: T5Config) -> Table:
    """A network that is built names its table of embeddings three times, and once more as the tied head."""
    return _names(config, (*COPIES, "lm_head.weight") if config.tied else COPIES)


def hf_file_names(config: T5Config) -> Table:
    """The files that save_pretrained writes, and those of the hub, have it once."""
    return _names(config, ())


def _names(config: T5Config, copies: tuple[str, ...]) -> Table:
    def join(table: Tensor, *others: Tensor) -> Tensor:
        for name, other in zip(copies, others, strict=True):
            if not table.is_meta and other.any() and not torch.equal(table, other):
                raise OrchardError(f"'{name}' differs from 'shared.weight'; build the model with tied=False")
        return table

    def attention(ours: str, theirs: str) -> Table:
        parts = tuple(f"{theirs}{part}.weight" for part in "qkv")
        joined = Rule(f"{ours}qkv.weight", parts, lambda *rows: torch.cat(rows), lambda rows: rows.chunk(3))
        return [joined, (f"{ours}out.weight", f"{theirs}o.weight")]

    def mlp(ours: str, theirs: str) -> Table:
        if not config.gated:
            return [(f"{ours}fc1.weight", f"{theirs}wi.weight"), (f"{ours}fc2.weight", f"{theirs}wo.weight")]
        parts = (f"{theirs}wi_1.weight", f"{theirs}wi_0.weight")  # values, then gates
        joined = Rule(f"{ours}0.fc1.weight", parts, lambda *rows: torch.cat(rows), lambda rows: rows.chunk(2))
        return [joined, (f"{ours}0.fc2.weight", f"{theirs}wo.weight")]

    encoder, decoder = "encoder.block.{}.layer.", "decoder.block.{}.layer."
    bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return [
        Rule("token.weight", ("shared.weight", *copies), join, lambda table: (table,) * (1 + len(copies))),
        ("head.weight", "lm_head.weight"),
        ("encoder_bias.table.weight", f"encoder.{bias}"),
        ("decoder_bias.table.weight", f"decoder.{bias}"),
        *attention("encoder.{}.attention.", encoder + "0.SelfAttention."),
        *attention("decoder.{}.self_attention.", decoder + "0.SelfAttention."),
        *attention("decoder.{}.cross_attention.", decoder + "1.EncDecAttention."),
        *mlp("encoder.{}.mlp.", encoder + "1.DenseReluDense."),
        *mlp("decoder.{}.mlp.", decoder + "2.DenseReluDense."),
        ("encoder.{}.norm1.weight", encoder + "0.layer_norm.weight"),
        ("encoder.{}.norm2.weight", encoder + "1.layer_norm.weight"),
        ("decoder.{}.norm1.weight", decoder + "0.layer_norm.weight"),
        ("decoder.{}.norm2.weight", decoder + "1.layer_norm.weight"),
        ("decoder.{}.norm3.weight", decoder + "2.layer_norm.weight"),
        ("encoder_norm.weight", "encoder.final_layer_norm.weight"),
        ("decoder_norm.weight", "decoder.final_layer_norm.weight"),
    ]


CONFIG_JSON: ConfigJson = {
    "d_model": "width",
    "num_layers": "depth",
    "num_decoder_layers": "depth",
    "num_heads": "heads",
    "d_kv": "head_width",
    "d_ff": "hidden",
    "vocab_size": "vocabulary",
    "pad_token_id": "pad",
    "relative_attention_num_buckets": "buckets",
    "relative_attention_max_distance": "distance",
    "feed_forward_proj": {"relu": {"gated": False}, "gated-gelu": {"gated": True}},
    "layer_norm_epsilon": "norm_eps",
    "tie_word_embeddings": "tied",
}
NAMES = {"hf_file": hf_file_names, "hf": hf_names}
