"""The names of the Transformer's tensors in torch.nn.Transformer and in transformers' MarianMTModel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from orchard.errors import OrchardError
from orchard.models import Rule
from orchard.models.config_json import ConfigJson, only
from orchard.nn.position import sinusoids

if TYPE_CHECKING:
    from orchard.models.language.transformer import TransformerConfig

Table = list[Rule | tuple[str, str]]
ENCODER, DECODER = "encoder.blocks.{}.", "decoder.{}."


def torch_names(config: TransformerConfig) -> Table:
    """A torch.nn.Transformer called `transformer`, beside a table of embeddings called `embedding`."""
    if config.output_bias:
        return []  # it has no such network

    def attention(ours: str, theirs: str) -> Table:
        return [
            (ours + "qkv.weight", theirs + "in_proj_weight"),
            (ours + "qkv.bias", theirs + "in_proj_bias"),
            (ours + "out.{}", theirs + "out_proj.{}"),
        ]

    encoder, decoder = "transformer.encoder.layers.{}.", "transformer.decoder.layers.{}."
    return [
        ("token.weight", "embedding.weight"),
        *attention(ENCODER + "attention.", encoder + "self_attn."),
        *attention(DECODER + "self_attention.", decoder + "self_attn."),
        *attention(DECODER + "cross_attention.", decoder + "multihead_attn."),
        (ENCODER + "mlp.fc{}", encoder + "linear{}"),
        (DECODER + "mlp.fc{}", decoder + "linear{}"),
        (ENCODER + "norm{}", encoder + "norm{}"),
        (DECODER + "norm{}", decoder + "norm{}"),
        ("encoder.norm.{}", "transformer.encoder.norm.{}"),
        ("decoder_norm.{}", "transformer.decoder.norm.{}"),
    ]


def hf_names(config: TransformerConfig) -> Table:
    """The tensors of MarianMTModel, which names its one table four times and holds positions and a fixed bias."""
    copies = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    tables = ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight")
    return marian_names(config, copies, tables)


def hf_file_names(config: TransformerConfig) -> Table:
    """The file that MarianMTModel.save_pretrained writes: the table once, no positions."""
    return marian_names(config, copies=(), positions=())


def marian_names(config: TransformerConfig, copies: tuple[str, ...], positions: tuple[str, ...]) -> Table:
    """Names as transformers' translators have them. `copies`: further names of the table of embeddings; `positions`:
    names of the sinusoids in the file."""
    if config.norm == "pre" or config.final_norm or config.interleaved:
        return []  # it has no such network
    bias = () if config.output_bias else ("final_logits_bias",)

    def join(table: Tensor, *others: Tensor) -> Tensor:
        for name, other in zip(copies, others[: len(copies)], strict=True):
            if not table.is_meta and other.any() and not torch.equal(table, other):
                raise OrchardError(f"'{name}' differs from 'model.shared.weight'; both languages share one table here")
        fixed = zip((*positions, *bias), others[len(copies) :], strict=True)
        for name, tensor in fixed:
            wanted = torch.zeros_like(tensor) if name in bias else _sinusoids(config, tensor)
            if not tensor.is_meta and tensor.any() and not torch.allclose(tensor, wanted, atol=1e-6):
                raise OrchardError(f"'{name}' {'is set; build the model with output_bias=True' if bias else 'differs'}")
        return table

    def split(table: Tensor) -> tuple[Tensor, ...]:
        like = table.new_empty(config.context, config.width)
        zeros = (table.new_zeros(1, config.vocabulary),) if bias else ()
        return (table, *(table for _ in copies), *(_sinusoids(config, like) for _ in positions), *zeros)

    def attention(ours: str, theirs: str) -> Table:
        rows = tuple(f"{theirs}{part}_proj" for part in "qkv")
        return [
            Rule(
                f"{ours}qkv.{kind}",
                tuple(f"{row}.{kind}" for row in rows),
                lambda *parts: torch.cat(parts),
                lambda whole: whole.chunk(3),
            )
            for kind in ("weight", "bias")
        ] + [(ours + "out.{}", theirs + "out_proj.{}")]

    encoder, decoder = "model.encoder.layers.{}.", "model.decoder.layers.{}."
    return [
        Rule("token.weight", ("model.shared.weight", *copies, *positions, *bias), join, split),
        Rule("output_bias", ("final_logits_bias",), lambda bias: bias.flatten(), lambda bias: (bias[None],)),
        *attention(ENCODER + "attention.", encoder + "self_attn."),
        *attention(DECODER + "self_attention.", decoder + "self_attn."),
        *attention(DECODER + "cross_attention.", decoder + "encoder_attn."),
        (ENCODER + "mlp.fc{}", encoder + "fc{}"),
        (DECODER + "mlp.fc{}", decoder + "fc{}"),
        (ENCODER + "norm1.{}", encoder + "self_attn_layer_norm.{}"),
        (ENCODER + "norm2.{}", encoder + "final_layer_norm.{}"),
        (DECODER + "norm1.{}", decoder + "self_attn_layer_norm.{}"),
        (DECODER + "norm2.{}", decoder + "encoder_attn_layer_norm.{}"),
        (DECODER + "norm3.{}", decoder + "final_layer_norm.{}"),
    ]


def _sinusoids(config: TransformerConfig, like: Tensor) -> Tensor:
    return sinusoids(*like.shape, interleaved=config.interleaved).to(like)


ACTIVATIONS = {"relu": "relu", "silu": "silu", "swish": "silu"}
SIZES: ConfigJson = {
    "d_model": "width",
    "encoder_layers": "depth",
    "decoder_layers": "depth",
    "encoder_attention_heads": "heads",
    "decoder_attention_heads": "heads",
    "encoder_ffn_dim": "hidden",
    "decoder_ffn_dim": "hidden",
    "vocab_size": "vocabulary",
    "max_position_embeddings": "context",
    "pad_token_id": "pad",
}
CONFIG_JSON: ConfigJson = {
    **SIZES,
    "activation_function": {name: {"activation": ours} for name, ours in ACTIVATIONS.items()},
    "normalize_before": {False: {"norm": "post"}, True: {"norm": "pre"}},
    "add_final_layer_norm": "final_norm",
    "scale_embedding": only(True),
    "static_position_embeddings": only(True),
    "normalize_embedding": only(False),
    "tie_word_embeddings": only(True),
    "share_encoder_decoder_embeddings": only(True),
}
NAMES = {"hf_file": hf_file_names, "hf": hf_names, "torch": torch_names}
