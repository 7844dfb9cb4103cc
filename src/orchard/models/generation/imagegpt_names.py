"""The names of Image GPT's tensors in the checkpoints of OpenAI and of transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from orchard.errors import OrchardError
from orchard.models import Rule
from orchard.models.config_json import ConfigJson, only

if TYPE_CHECKING:
    from orchard.models.generation.imagegpt import ImageGPTConfig

Table = list[Rule | tuple[str, str]]
BLOCK = "stack.blocks.{}."
LINEARS = {  # of a block: ours and transformers'
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def openai_names(config: ImageGPTConfig) -> Table:
    """The TensorFlow checkpoints, without a bias anywhere; attention's matrices are (heads, d, D)."""
    if config.bias:
        return []  # it has no such network
    layer = "model/h{}/"

    def by_heads(matrix: Tensor) -> Tensor:
        return matrix.reshape(config.heads, -1, config.width)

    table: Rule | tuple[str, str] = ("token.weight", "model/wte")
    if config.causal:  # the start's vector stands by itself
        table = Rule(
            "token.weight",
            ("model/wte", "model/sos"),
            lambda colours, start: torch.cat([colours, start[None]]),
            lambda table: (table[:-1], table[-1]),
        )
    return [
        table,
        ("position.weight", "model/wpe"),
        Rule(
            BLOCK + "attention.qkv.weight",
            tuple(f"{layer}attn/{name}_proj" for name in "qkv"),
            lambda *parts: torch.cat([part.flatten(0, 1) for part in parts]),
            lambda matrix: tuple(by_heads(part) for part in matrix.chunk(3)),
        ),
        Rule(
            BLOCK + "attention.out.weight",
            (layer + "attn/c_proj",),
            lambda kernel: kernel.flatten(0, 1).T,
            lambda matrix: (by_heads(matrix.T),),
        ),
        *(
            Rule(f"{BLOCK}mlp.{ours}.weight", (f"{layer}mlp/{theirs}/w",), lambda kernel: kernel.T, _transposed)
            for ours, theirs in (("fc1", "c_fc"), ("fc2", "c_proj"))
        ),
        (BLOCK + "norm1.weight", layer + "ln_1/g"),
        (BLOCK + "norm2.weight", layer + "ln_2/g"),
        ("stack.norm.weight", "model/ln_f/g"),
        ("head.weight", "model/wtet"),
    ]


def hf_names(config: ImageGPTConfig) -> Table:
    """The tensors of ImageGPTForCausalImageModeling, whose linear layers have biases: zeros where ours have none."""
    if not config.causal:
        return []  # it has no such network
    layer = "transformer.h.{}."
    linears: Table = []
    for ours, theirs in LINEARS.items():
        weight, bias = f"{layer}{theirs}.weight", f"{layer}{theirs}.bias"
        if config.bias:
            linears += [
                Rule(f"{BLOCK}{ours}.weight", (weight,), lambda matrix: matrix.T, _transposed),
                (f"{BLOCK}{ours}.bias", bias),
            ]
        else:
            linears.append(Rule(f"{BLOCK}{ours}.weight", (weight, bias), _without_bias, _with_zero_bias))
    return [
        ("token.weight", "transformer.wte.weight"),
        ("position.weight", "transformer.wpe.weight"),
        *linears,
        (BLOCK + "norm1.weight", layer + "ln_1.weight"),
        (BLOCK + "norm2.weight", layer + "ln_2.weight"),
        ("stack.norm.weight", "transformer.ln_f.weight"),
        ("head.weight", "lm_head.weight"),
    ]


def _transposed(matrix: Tensor) -> tuple[Tensor, ...]:
    return (matrix.T,)


def _without_bias(matrix: Tensor, bias: Tensor) -> Tensor:
    """OpenAI's weights have biases of zero in transformers' files; others are not dropped unsaid."""
    if not bias.is_meta and bias.any():
        raise OrchardError("the checkpoint has biases that are not zero; build the model with bias=True")
    return matrix.T


def _with_zero_bias(matrix: Tensor) -> tuple[Tensor, Tensor]:
    return matrix.T, matrix.new_zeros(len(matrix))


def _size_of(positions: int, table: Mapping[str, Any]) -> dict[str, int]:
    """The side of a square of so many pixels."""
    return {"image_size": {side * side: side for side in (math.isqrt(positions),)}[positions]}


CONFIG_JSON: ConfigJson = {
    "n_embd": "width",
    "n_layer": "depth",
    "n_head": "heads",
    "n_inner": lambda inner, table: {"width": {4 * table["n_embd"]: table["n_embd"]}[inner]},
    "vocab_size": lambda ids, table: {"vocabulary": ids - 1},  # the start is one of theirs
    "n_positions": _size_of,
    "layer_norm_epsilon": only(1e-5),
    "activation_function": only("quick_gelu"),
    "tie_word_embeddings": only(False),
    "scale_attn_weights": only(True),
    "scale_attn_by_inverse_layer_idx": only(False),
}
NOT_WEIGHTS = {
    "hf": ("*.attn.bias", "*.attn.masked_bias"),  # causal masks of older versions
    "openai": ("model/clf/wclf", "*/Adam", "*/Adam_1", "global_step"),  # a classifier, and what training keeps
}
NAMES = {"hf": hf_names, "openai": openai_names}
