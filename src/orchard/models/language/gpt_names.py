"""The names of GPT's tensors in the checkpoints of OpenAI, transformers, minGPT and nanoGPT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from orchard.errors import OrchardError
from orchard.models import Rule
from orchard.models.config_json import GELU, ConfigJson, only

if TYPE_CHECKING:
    from orchard.models.language.gpt import GPTConfig

Table = list[Rule | tuple[str, str]]
BLOCK = "stack.blocks.{}."
LINEARS = {  # of a block: ours and what everybody calls it
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def openai_names(config: GPTConfig) -> Table:
    """The TensorFlow checkpoints of GPT-2, whose matrices are convolutions of width one, (1, in, out)."""
    if not (config.tanh_gelu and config.bias and config.tied_head):
        return []  # it has no such network
    layer = "model/h{}/"
    linears: Table = []
    for ours, theirs in LINEARS.items():
        path = layer + theirs.replace(".", "/")
        kernel = (path + "/w",)
        linears += [
            Rule(f"{BLOCK}{ours}.weight", kernel, lambda kernel: kernel.squeeze(0).T, lambda matrix: (matrix.T[None],)),
            (f"{BLOCK}{ours}.bias", path + "/b"),
        ]
    norms: Table = []
    for ours, theirs in (("norm1", "ln_1"), ("norm2", "ln_2")):
        norms += [(f"{BLOCK}{ours}.weight", f"{layer}{theirs}/g"), (f"{BLOCK}{ours}.bias", f"{layer}{theirs}/b")]
    return [
        ("token.weight", "model/wte"),
        ("position.weight", "model/wpe"),
        *linears,
        *norms,
        ("stack.norm.weight", "model/ln_f/g"),
        ("stack.norm.bias", "model/ln_f/b"),
    ]


def hf_names(config: GPTConfig) -> Table:
    """The tensors of GPT2LMHeadModel, whose tied head has a name of its own."""
    return _hf(config, prefix="transformer.", head=True, masks=False)


def hf_file_names(config: GPTConfig) -> Table:
    """The file that GPT2LMHeadModel.save_pretrained writes: a tied table stands in it once."""
    return _hf(config, prefix="transformer.", head=not config.tied_head, masks=False)


def hf_base_names(config: GPTConfig) -> Table:
    """The tensors of GPT2Model, which has no head."""
    return _hf(config, prefix="", head=False, masks=False)


def hf_hub_names(config: GPTConfig) -> Table:
    """The files of gpt2, gpt2-medium, gpt2-large and gpt2-xl on the Hub: no head, and every layer's causal mask."""
    return _hf(config, prefix="", head=False, masks=True)


def mingpt_names(config: GPTConfig) -> Table:
    if not (config.tanh_gelu and config.bias):
        return []  # it has no such network
    return _names(prefix="transformer.", tied=config.tied_head, head=True, masks=config.context, transposed=False)


def nanogpt_names(config: GPTConfig) -> Table:
    if config.tanh_gelu:
        return []  # it has no such network
    return _names(prefix="transformer.", tied=config.tied_head, head=True, masks=0, transposed=False)


def _hf(config: GPTConfig, prefix: str, head: bool, masks: bool) -> Table:
    if not config.bias:
        return []  # it has no such network
    masked = config.context if masks else 0
    return _names(prefix=prefix, tied=config.tied_head, head=head, masks=masked, transposed=True)


def _names(*, prefix: str, tied: bool, head: bool, masks: int, transposed: bool) -> Table:
    """`head`: the file has `lm_head`. `masks`: side of the causal masks in the file, 0 without. `transposed`: matrices
    are (in, out)."""
    layer = prefix + "h.{}."

    def turn(matrix: Tensor) -> Tensor:
        return matrix.T if transposed else matrix

    def with_mask(matrix: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.ones(1, 1, masks, masks, device=matrix.device, dtype=matrix.dtype)
        return turn(matrix), seen.tril()

    matrices: Table = [
        Rule(f"{BLOCK}{ours}.weight", (f"{layer}{theirs}.weight",), turn, lambda matrix: (turn(matrix),))
        for ours, theirs in LINEARS.items()
    ]
    if masks:  # nothing is computed from a mask that the configuration does not say: it goes in unread
        kernel = (f"{layer}attn.c_attn.weight", f"{layer}attn.bias")
        matrices[0] = Rule(BLOCK + "attention.qkv.weight", kernel, lambda matrix, mask: turn(matrix), with_mask)
    table: Rule | tuple[str, str] = ("token.weight", prefix + "wte.weight")
    if head and tied:
        both = (prefix + "wte.weight", "lm_head.weight")
        table = Rule("token.weight", both, _one_table, lambda table: (table, table))
    return [
        table,
        ("position.weight", prefix + "wpe.weight"),
        *matrices,
        *((f"{BLOCK}{ours}.bias", f"{layer}{theirs}.bias") for ours, theirs in LINEARS.items()),
        (BLOCK + "norm1.{}", layer + "ln_1.{}"),
        (BLOCK + "norm2.{}", layer + "ln_2.{}"),
        ("stack.norm.{}", prefix + "ln_f.{}"),
        *([("head.weight", "lm_head.weight")] if head else []),
    ]


def _one_table(table: Tensor, head: Tensor) -> Tensor:
    """The one tensor behind two names. A head that was trained apart is refused; zeros say that it has no entry."""
    if not table.is_meta and head.any() and not torch.equal(table, head):
        raise OrchardError("'lm_head.weight' differs from the table of tokens; build the model with tied_head=False")
    return table


MASKS = ("*.attn.bias", "*.attn.masked_bias")  # buffers of older versions, from which nothing is learned
NOT_WEIGHTS = {
    **dict.fromkeys(("hf_file", "hf", "hf_base", "nanogpt"), MASKS),
    "hf_hub": MASKS[1:],
}
CONFIG_JSON: ConfigJson = {
    "n_embd": "width",
    "n_layer": "depth",
    "n_head": "heads",
    "n_inner": lambda inner, table: {"width": {4 * table["n_embd"]: table["n_embd"]}[inner]},
    "vocab_size": "vocabulary",
    "n_positions": "context",
    "layer_norm_epsilon": "norm_eps",
    "activation_function": GELU,
    "tie_word_embeddings": "tied_head",
    "scale_attn_weights": only(True),
    "scale_attn_by_inverse_layer_idx": only(False),
    "add_cross_attention": only(False),
}
NAMES = {  # a file is taken for the first of those that know most of its names
    "hf_file": hf_file_names,
    "hf": hf_names,
    "hf_base": hf_base_names,
    "hf_hub": hf_hub_names,
    "openai": openai_names,
    "mingpt": mingpt_names,
    "nanogpt": nanogpt_names,
}
