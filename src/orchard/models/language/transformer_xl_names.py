"""The names of Transformer-XL's tensors in the authors' PyTorch and TensorFlow checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from orchard.models import Rule

if TYPE_CHECKING:
    from orchard.models.language.transformer_xl import TransformerXLConfig

Table = list[Rule | tuple[str, str]]


def pytorch_names(config: TransformerXLConfig) -> Table:
    """MemTransformerLM, where what is shared stands under each of its names, and clusters the other way round."""
    c, table, head = config, "word_emb.emb_layers.{}.weight", "crit.out_layers.{}.weight"
    if c.tensorflow:
        return []  # it has no such network
    tables: Table = (
        [Rule("tables.{}.weight", (table, head), *_shared(2))]
        if c.tied_head
        else [("tables.{}.weight", table), ("head_tables.{}.weight", head)]
    )
    biases = tuple(f"crit.out_layers.{n}.bias" for n in range(len(c.tables)))
    sizes = [size for size, _ in c.tables]
    layer = "layers.{}."
    return [
        *tables,
        *_projections(c),
        ("head_projections.{}.weight", "crit.out_projs.{}"),
        Rule("bias", biases, lambda *parts: torch.cat(parts), lambda bias: torch.split(bias, sizes)),
        Rule("cluster_weight", ("crit.cluster_weight",), lambda t: t.flip(0), lambda t: (t.flip(0),)),
        Rule("cluster_bias", ("crit.cluster_bias",), lambda t: t.flip(0), lambda t: (t.flip(0),)),
        ("content_bias", "r_w_bias"),
        ("position_bias", "r_r_bias"),
        (f"{layer}attention.qkv.weight", f"{layer}dec_attn.qkv_net.weight"),
        (f"{layer}attention.position.weight", f"{layer}dec_attn.r_net.weight"),
        (f"{layer}attention.out.weight", f"{layer}dec_attn.o_net.weight"),
        (f"{layer}norm1.{{}}", f"{layer}dec_attn.layer_norm.{{}}"),
        (f"{layer}fc1.{{}}", f"{layer}pos_ff.CoreNet.0.{{}}"),
        (f"{layer}fc2.{{}}", f"{layer}pos_ff.CoreNet.3.{{}}"),
        (f"{layer}norm2.{{}}", f"{layer}pos_ff.layer_norm.{{}}"),
    ]


def _projections(c: TransformerXLConfig) -> Table:
    """Of each table, and the projections of the softmax that are the same tensor."""
    rules: Table = []
    for n in range(len(c.tables)):
        tails = [n] if len(c.tables) > 1 else range(len(c.bounds) - 1)
        shared = [f"crit.out_projs.{tail}" for tail in tails if tail] if c.tied_projections else []
        names = (f"word_emb.emb_projs.{n}", *shared)
        rules.append(Rule(f"projections.{n}.weight", names, *_shared(len(names))))
    return rules


def _shared(count: int) -> tuple[Callable[..., Tensor], Callable[[Tensor], tuple[Tensor, ...]]]:
    """One tensor of ours under several names."""

    def first(*tensors: Tensor) -> Tensor:
        return tensors[0]

    def each(tensor: Tensor) -> tuple[Tensor, ...]:
        return (tensor,) * count

    return first, each


def tensorflow_names(config: TransformerXLConfig) -> Table:
    """The released models: matrices stand transposed, every layer has biases of its own, all projections but the first
    are shared."""
    c = config
    if not (c.tensorflow and c.tied_head and c.tied_projections and c.division > 1):
        return []  # none of them is such a network
    begin, embed, softmax = "model/transformer/", "adaptive_embed/cutoff_", "adaptive_softmax/cutoff_"
    layer = begin + "layer_{}/"
    sizes = [size for size, _ in c.tables]
    biases = tuple(f"{begin}{softmax}{n}/b" for n in range(len(sizes)))

    def matrix(ours: str, theirs: str) -> Rule:
        return Rule(ours, (theirs,), lambda t: t.T, lambda t: (t.T,))

    return [
        ("tables.{}.weight", f"{begin}{embed}{{}}/lookup_table"),
        matrix("projections.{}.weight", f"{begin}{embed}{{}}/proj_W"),
        matrix("head_projections.{}.weight", f"{begin}{softmax}{{}}/proj"),
        Rule("bias", biases, lambda *parts: torch.cat(parts), lambda bias: torch.split(bias, sizes)),
        ("cluster_weight", f"{begin}{softmax}0/cluster_W"),
        ("cluster_bias", f"{begin}{softmax}0/cluster_b"),
        ("content_bias", f"{begin}r_w_bias"),
        ("position_bias", f"{begin}r_r_bias"),
        matrix("layers.{}.attention.qkv.weight", f"{layer}rel_attn/qkv/kernel"),
        matrix("layers.{}.attention.position.weight", f"{layer}rel_attn/r/kernel"),
        matrix("layers.{}.attention.out.weight", f"{layer}rel_attn/o/kernel"),
        ("layers.{}.norm1.weight", f"{layer}rel_attn/LayerNorm/gamma"),
        ("layers.{}.norm1.bias", f"{layer}rel_attn/LayerNorm/beta"),
        matrix("layers.{}.fc1.weight", f"{layer}ff/layer_1/kernel"),
        ("layers.{}.fc1.bias", f"{layer}ff/layer_1/bias"),
        matrix("layers.{}.fc2.weight", f"{layer}ff/layer_2/kernel"),
        ("layers.{}.fc2.bias", f"{layer}ff/layer_2/bias"),
        ("layers.{}.norm2.weight", f"{layer}ff/LayerNorm/gamma"),
        ("layers.{}.norm2.bias", f"{layer}ff/LayerNorm/beta"),
    ]


NAMES = {"pytorch": pytorch_names, "tensorflow": tensorflow_names}
NOT_WEIGHTS = {"pytorch": ("pos_emb.inv_freq",)}  # follows from the width
