"""The names of ViT's tensors in the checkpoints of Google, timm, torchvision and transformers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from orchard.models import Rule
from orchard.models.config_json import GELU, ConfigJson, only
from orchard.models.vision.vit_hybrid import google_stem_names, timm_stem_names

if TYPE_CHECKING:
    from orchard.models.vision.vit import ViTConfig

Table = list[Rule | tuple[str, str]]


def timm_names(config: ViTConfig) -> Table:
    return [
        *timm_stem_names(config.stem_stages or ()),
        ("patch_embed.{}", "patch_embed.proj.{}"),
        ("class_token", "cls_token"),
        ("position", "pos_embed"),
        ("blocks.{}.attention.qkv.{}", "blocks.{}.attn.qkv.{}"),
        ("blocks.{}.attention.out.{}", "blocks.{}.attn.proj.{}"),
        ("blocks.{}", "blocks.{}"),
        ("norm.{}", "fc_norm.{}" if config.pool == "mean_norm" else "norm.{}"),
        ("pre_logits.{}", "pre_logits.fc.{}"),
        ("head.{}", "head.{}"),
    ]


def torchvision_names(config: ViTConfig) -> Table:
    if config.pool != "token":
        return []  # it has no such network
    layer = "encoder.layers.encoder_layer_{}."
    return [
        ("patch_embed.{}", "conv_proj.{}"),
        ("class_token", "class_token"),
        ("position", "encoder.pos_embedding"),
        ("blocks.{}.attention.qkv.{}", layer + "self_attention.in_proj_{}"),
        ("blocks.{}.attention.out.{}", layer + "self_attention.out_proj.{}"),
        ("blocks.{}.norm1.{}", layer + "ln_1.{}"),
        ("blocks.{}.norm2.{}", layer + "ln_2.{}"),
        ("blocks.{}.mlp.fc1.{}", layer + "mlp.0.{}"),
        ("blocks.{}.mlp.fc2.{}", layer + "mlp.3.{}"),
        ("norm.{}", "encoder.ln.{}"),
        ("pre_logits.{}", "heads.pre_logits.{}"),
        ("head.{}", "heads.head.{}"),
    ]


def hf_names(config: ViTConfig) -> Table:
    """The names of transformers 5's modules."""
    return _hf_names(
        config,
        "vit.layers.{}.",
        "attention.{}_proj",
        ("q", "k", "v"),
        "attention.o_proj",
        ("mlp.fc1", "mlp.fc2"),
    )


def hf4_names(config: ViTConfig) -> Table:
    """The names in files on the Hub, which are those of transformers 4."""
    return _hf_names(
        config,
        "vit.encoder.layer.{}.",
        "attention.attention.{}",
        ("query", "key", "value"),
        "attention.output.dense",
        ("intermediate.dense", "output.dense"),
    )


def _hf_names(config: ViTConfig, layer: str, qkv: str, parts: tuple[str, ...], out: str, mlp: tuple[str, str]) -> Table:
    if config.pool != "token":
        return []  # it has no such network
    return [
        ("patch_embed.{}", "vit.embeddings.patch_embeddings.projection.{}"),
        ("class_token", "vit.embeddings.cls_token"),
        ("position", "vit.embeddings.position_embeddings"),
        Rule(
            "blocks.{}.attention.qkv.{}",
            tuple(f"{layer}{qkv.format(part)}.{{}}" for part in parts),
            join=lambda *pieces: torch.cat(pieces),
            split=lambda tensor: tensor.chunk(3),
        ),
        ("blocks.{}.attention.out.{}", f"{layer}{out}.{{}}"),
        ("blocks.{}.norm1.{}", f"{layer}layernorm_before.{{}}"),
        ("blocks.{}.norm2.{}", f"{layer}layernorm_after.{{}}"),
        ("blocks.{}.mlp.fc1.{}", f"{layer}{mlp[0]}.{{}}"),
        ("blocks.{}.mlp.fc2.{}", f"{layer}{mlp[1]}.{{}}"),
        ("norm.{}", "vit.layernorm.{}"),
        ("head.{}", "classifier.{}"),
    ]


def google_names(config: ViTConfig) -> Table:
    """Google's .npz files, whose matrices are (in, out) and whose attention keeps its heads apart."""
    width, heads = config.width, config.heads
    block = "Transformer/encoderblock_{}/"
    attention = block + "MultiHeadDotProductAttention_1/"
    qkv = [attention + part for part in ("query", "key", "value")]
    return [
        *(google_stem_names(config.stem_stages) if config.stem_stages is not None else ()),
        Rule(
            "patch_embed.weight",
            ("embedding/kernel",),
            join=lambda kernel: kernel.permute(3, 2, 0, 1),  # (h, w, in, out) → (out, in, h, w)
            split=lambda kernel: (kernel.permute(2, 3, 1, 0),),
        ),
        ("patch_embed.bias", "embedding/bias"),
        ("class_token", "cls"),
        ("position", "Transformer/posembed_input/pos_embedding"),
        Rule(
            "blocks.{}.attention.qkv.weight",
            tuple(name + "/kernel" for name in qkv),
            join=lambda *pieces: torch.cat([piece.flatten(1).T for piece in pieces]),  # (D, heads, d) each
            split=lambda tensor: tuple(piece.T.reshape(width, heads, -1) for piece in tensor.chunk(3)),
        ),
        Rule(
            "blocks.{}.attention.qkv.bias",
            tuple(name + "/bias" for name in qkv),
            join=lambda *pieces: torch.cat([piece.flatten() for piece in pieces]),
            split=lambda tensor: tuple(piece.reshape(heads, -1) for piece in tensor.chunk(3)),
        ),
        Rule(
            "blocks.{}.attention.out.weight",
            (attention + "out/kernel",),
            join=lambda kernel: kernel.flatten(0, 1).T,  # (heads, d, D)
            split=lambda tensor: (tensor.T.reshape(heads, -1, width),),
        ),
        ("blocks.{}.attention.out.bias", attention + "out/bias"),
        ("blocks.{}.norm1.weight", block + "LayerNorm_0/scale"),
        ("blocks.{}.norm1.bias", block + "LayerNorm_0/bias"),
        ("blocks.{}.norm2.weight", block + "LayerNorm_2/scale"),
        ("blocks.{}.norm2.bias", block + "LayerNorm_2/bias"),
        *_dense("blocks.{}.mlp.fc1", block + "MlpBlock_3/Dense_0"),
        *_dense("blocks.{}.mlp.fc2", block + "MlpBlock_3/Dense_1"),
        ("norm.weight", "Transformer/encoder_norm/scale"),
        ("norm.bias", "Transformer/encoder_norm/bias"),
        *_dense("pre_logits", "pre_logits"),
        *_dense("head", "head"),
    ]


def _dense(ours: str, theirs: str) -> Table:
    kernel = Rule(
        f"{ours}.weight", (f"{theirs}/kernel",), join=lambda tensor: tensor.T, split=lambda tensor: (tensor.T,)
    )
    return [kernel, (f"{ours}.bias", f"{theirs}/bias")]


def infer_config(config: ViTConfig, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """What a checkpoint says of the configuration: picture size (a square), the extra layer, the source's habits."""
    settings: dict[str, Any] = {}
    position, pre_logits = lookup("position"), lookup("pre_logits.weight")
    if position is not None:
        settings["image_size"] = math.isqrt(position.shape[1] - int(config.class_token)) * config.stride
    if pre_logits is not None:
        settings["pre_logits"] = len(pre_logits)
    if source == "google":
        settings["tanh_gelu"] = True
    if source in ("hf", "hf4"):
        settings["norm_eps"] = 1e-12
    return settings


CONFIG_JSON: ConfigJson = {
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "intermediate_size": lambda hidden, table: {"mlp_ratio": hidden / table["hidden_size"]},
    "hidden_act": GELU,
    "layer_norm_eps": "norm_eps",
    "image_size": lambda size, _: {"image_size": tuple(size) if isinstance(size, list) else size},
    "patch_size": "patch",
    "num_channels": "in_channels",
    "qkv_bias": only(True),
}
NAMES = {
    "google": google_names,
    "timm": timm_names,
    "torchvision": torchvision_names,
    "hf": hf_names,
    "hf4": hf4_names,
}
