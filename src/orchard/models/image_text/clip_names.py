"""The names of CLIP's tensors in OpenAI's files and in transformers'."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from orchard.models import Rule
from orchard.models.config_json import ConfigJson, ConfigRule, only

if TYPE_CHECKING:
    from orchard.models.image_text.clip import CLIPConfig

Table = list[Rule | tuple[str, str]]

# What the files carry beside weights: sizes and a count from 0 up, which the configuration has already.
NOT_WEIGHTS = {
    "openai": ("input_resolution", "context_length", "vocab_size"),
    "hf": ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"),
}


def openai_names(config: CLIPConfig) -> Table:
    return [
        ("logit_scale", "logit_scale"),
        ("text.token_embed.weight", "token_embedding.weight"),
        ("text.position", "positional_embedding"),
        *_openai_blocks("text.stack.blocks.{}.", "transformer.resblocks.{}."),
        ("text.stack.norm.{}", "ln_final.{}"),
        _transposed("text.projection.weight", "text_projection"),
        *(_openai_resnet() if config.patch is None else _openai_patches()),
    ]


def _openai_patches() -> Table:
    return [
        ("vision.patch_embed.weight", "visual.conv1.weight"),
        ("vision.class_token", "visual.class_embedding"),
        ("vision.position", "visual.positional_embedding"),
        ("vision.norm.{}", "visual.ln_pre.{}"),
        *_openai_blocks("vision.stack.blocks.{}.", "visual.transformer.resblocks.{}."),
        ("vision.stack.norm.{}", "visual.ln_post.{}"),
        _transposed("vision.projection.weight", "visual.proj"),
    ]


def _openai_blocks(ours: str, theirs: str) -> Table:
    return [
        (ours + "attention.qkv.{}", theirs + "attn.in_proj_{}"),
        (ours + "attention.out.{}", theirs + "attn.out_proj.{}"),
        (ours + "norm{}.{}", theirs + "ln_{}.{}"),
        (ours + "mlp.fc1.{}", theirs + "mlp.c_fc.{}"),
        (ours + "mlp.fc2.{}", theirs + "mlp.c_proj.{}"),
    ]


def _openai_resnet() -> Table:
    stages: Table = []
    for n in range(4):
        ours, theirs = f"vision.layers.{n}.{{}}.", f"visual.layer{n + 1}.{{}}."
        stages += [
            (ours + "shortcut.1.{}", theirs + "downsample.0.{}"),  # ours has the pool at place 0
            (ours + "shortcut.2.{}", theirs + "downsample.1.{}"),
            (ours + "{}", theirs + "{}"),
        ]
    return [
        ("vision.stem.{}", "visual.{}"),
        *stages,
        ("vision.pool.position", "visual.attnpool.positional_embedding"),
        ("vision.pool.query.{}", "visual.attnpool.q_proj.{}"),
        ("vision.pool.key.{}", "visual.attnpool.k_proj.{}"),
        ("vision.pool.value.{}", "visual.attnpool.v_proj.{}"),
        ("vision.pool.out.{}", "visual.attnpool.c_proj.{}"),
    ]


def _transposed(ours: str, theirs: str) -> Rule:
    return Rule(ours, (theirs,), join=lambda matrix: matrix.T, split=lambda matrix: (matrix.T,))


def hf_names(config: CLIPConfig) -> Table:
    if config.patch is None:
        return []  # it has no such network
    return [
        ("logit_scale", "logit_scale"),
        ("text.token_embed.weight", "text_model.embeddings.token_embedding.weight"),
        ("text.position", "text_model.embeddings.position_embedding.weight"),
        *_hf_blocks("text.stack.blocks.{}.", "text_model.encoder.layers.{}."),
        ("text.stack.norm.{}", "text_model.final_layer_norm.{}"),
        ("text.projection.weight", "text_projection.weight"),
        ("vision.patch_embed.weight", "vision_model.embeddings.patch_embedding.weight"),
        ("vision.class_token", "vision_model.embeddings.class_embedding"),
        ("vision.position", "vision_model.embeddings.position_embedding.weight"),
        ("vision.norm.{}", "vision_model.pre_layrnorm.{}"),  # spelt so
        *_hf_blocks("vision.stack.blocks.{}.", "vision_model.encoder.layers.{}."),
        ("vision.stack.norm.{}", "vision_model.post_layernorm.{}"),
        ("vision.projection.weight", "visual_projection.weight"),
    ]


def _hf_blocks(ours: str, theirs: str) -> Table:
    return [
        Rule(
            ours + "attention.qkv.{}",
            tuple(f"{theirs}self_attn.{part}_proj.{{}}" for part in "qkv"),
            join=lambda *pieces: torch.cat(pieces),
            split=lambda tensor: tensor.chunk(3),
        ),
        (ours + "attention.out.{}", theirs + "self_attn.out_proj.{}"),
        (ours + "norm{}.{}", theirs + "layer_norm{}.{}"),
        (ours + "mlp.{}", theirs + "mlp.{}"),
    ]


def _tower_rules(tower: str) -> dict[str, ConfigRule]:
    def four_times(hidden: int, table: Mapping[str, Any]) -> dict[str, Any]:
        width = table[f"{tower}_config"]["hidden_size"]
        return {f"{tower}_width": {4 * width: width}[hidden]}

    rules: dict[str, ConfigRule] = {
        "hidden_size": f"{tower}_width",
        "num_hidden_layers": f"{tower}_depth",
        "num_attention_heads": f"{tower}_heads",
        "intermediate_size": four_times,
        "hidden_act": only("quick_gelu"),
        "layer_norm_eps": only(1e-5),
        "projection_dim": "width",
    }
    return {f"{tower}_config.{key}": rule for key, rule in rules.items()}


def infer_config(config: CLIPConfig, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """What a checkpoint says of the configuration: picture size (a square), vocabulary, longest sentence."""
    settings: dict[str, Any] = {}
    table = lookup("vision.pool.position" if config.patch is None else "vision.position")
    words, places = lookup("text.token_embed.weight"), lookup("text.position")
    if table is not None:
        settings["image_size"] = math.isqrt(len(table) - 1) * config.stride
    if words is not None:
        settings["vocabulary"] = len(words)
    if places is not None:
        settings["context"] = len(places)
    return settings


CONFIG_JSON: ConfigJson = {
    "projection_dim": "width",
    **_tower_rules("text"),
    **_tower_rules("vision"),
    "text_config.vocab_size": "vocabulary",
    "text_config.max_position_embeddings": "context",
    "vision_config.image_size": "image_size",
    "vision_config.patch_size": "patch",
    "vision_config.num_channels": "in_channels",
}
NAMES = {"openai": openai_names, "hf": hf_names}
