"""The names of DETR's tensors in the official files and in transformers'."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from orchard.models import Rule
from orchard.models.config_json import ConfigJson, only
from orchard.models.vision.trunk import trunk_names

if TYPE_CHECKING:
    from orchard.models.detection.detr import DETRConfig

Table = list[Rule | tuple[str, str]]


def official_names(config: DETRConfig) -> Table:
    """facebookresearch/detr: PyTorch's own names of a transformer."""
    encoder, decoder = "transformer.encoder.{}.", "transformer.decoder.{}."
    blocks: Table = []
    for ours, theirs, attentions in (
        (encoder, "transformer.encoder.layers.{}.", {"attention": "self_attn"}),
        (
            decoder,
            "transformer.decoder.layers.{}.",
            {"self_attention": "self_attn", "cross_attention": "multihead_attn"},
        ),
    ):
        for mine, yours in attentions.items():
            blocks.append((f"{ours}{mine}.qkv.{{}}", f"{theirs}{yours}.in_proj_{{}}"))
            blocks.append((f"{ours}{mine}.out.{{}}", f"{theirs}{yours}.out_proj.{{}}"))
        blocks.append((f"{ours}norm{{}}.{{}}", f"{theirs}norm{{}}.{{}}"))
        blocks.append((f"{ours}mlp.fc{{}}.{{}}", f"{theirs}linear{{}}.{{}}"))
    return [
        *trunk_names(config, "torchvision", "backbone.0.body."),
        *blocks,
        ("transformer.encoder_norm.{}", "transformer.encoder.norm.{}"),
        ("transformer.decoder_norm.{}", "transformer.decoder.norm.{}"),
        ("queries", "query_embed.weight"),
        ("position.rows", "backbone.1.row_embed.weight"),
        ("position.columns", "backbone.1.col_embed.weight"),
        ("projection.{}", "input_proj.{}"),
        ("class_head.{}", "class_embed.{}"),
        *((f"box_head.{2 * n}.{{}}", f"bbox_embed.layers.{n}.{{}}") for n in range(3)),
    ]


def hf_names(config: DETRConfig) -> Table:
    """transformers 5: `DetrForObjectDetection`, over a trunk of timm's."""
    return _hf_names(config, "model.backbone.model.", "o_proj", "mlp.fc")


def hf_hub_names(config: DETRConfig) -> Table:
    """The files on the Hub (facebook/detr-resnet-50 and its sizes), which older versions of transformers wrote."""
    return _hf_names(config, "model.backbone.conv_encoder.model.", "out_proj", "fc")


def _hf_names(config: DETRConfig, trunk: str, out: str, mlp: str) -> Table:
    blocks: Table = []
    for stack, branches in (
        ("encoder", {"attention": "self_attn"}),
        ("decoder", {"self_attention": "self_attn", "cross_attention": "encoder_attn"}),
    ):
        ours, theirs = f"transformer.{stack}.{{}}.", f"model.{stack}.layers.{{}}."
        for n, (mine, yours) in enumerate(branches.items(), 1):
            blocks.append(_stacked(f"{ours}{mine}.qkv.{{}}", *(f"{theirs}{yours}.{x}_proj.{{}}" for x in "qkv")))
            blocks.append((f"{ours}{mine}.out.{{}}", f"{theirs}{yours}.{out}.{{}}"))
            blocks.append((f"{ours}norm{n}.{{}}", f"{theirs}{yours}_layer_norm.{{}}"))
        blocks.append((f"{ours}norm{len(branches) + 1}.{{}}", f"{theirs}final_layer_norm.{{}}"))
        blocks.append((f"{ours}mlp.fc{{}}.{{}}", f"{theirs}{mlp}{{}}.{{}}"))
    return [
        *trunk_names(config, "timm", trunk),
        *blocks,
        ("transformer.decoder_norm.{}", "model.decoder.layernorm.{}"),
        ("queries", "model.query_position_embeddings.weight"),
        ("projection.{}", "model.input_projection.{}"),
        ("class_head.{}", "class_labels_classifier.{}"),
        *((f"box_head.{2 * n}.{{}}", f"bbox_predictor.layers.{n}.{{}}") for n in range(3)),
    ]


def _stacked(ours: str, *theirs: str) -> Rule:
    """Three maps in the rows of one."""
    return Rule(ours, theirs, lambda *parts: torch.cat(parts), lambda whole: tuple(whole.chunk(3)))


def infer_config(config: DETRConfig, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """The number of classes ("no object" is one more) and of queries."""
    tables = {"num_classes": lookup("class_head.bias"), "queries": lookup("queries")}
    sizes = {name: len(table) for name, table in tables.items() if table is not None}
    return {name: size - (name == "num_classes") for name, size in sizes.items()}


CONFIG_JSON: ConfigJson = {
    "d_model": "width",
    "encoder_layers": "encoder_layers",
    "decoder_layers": "decoder_layers",
    "encoder_attention_heads": "heads",
    "decoder_attention_heads": "heads",
    "encoder_ffn_dim": "hidden",
    "decoder_ffn_dim": "hidden",
    "num_queries": "queries",
    "num_channels": "in_channels",
    "activation_function": only("relu"),
    "position_embedding_type": "position",
    "backbone": "trunk",
    "dilation": {False: {"trunk_settings": ()}, True: {"trunk_settings": (("dilated_stages", 1),)}},
}
NAMES: dict[str, Callable[[Any], Table]] = {"official": official_names, "hf": hf_names, "hf_hub": hf_hub_names}
