"""The names of RNNsearch's tensors in the files of the authors' program, GroundHog (`search_model.npz`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from orchard.models import Rule

if TYPE_CHECKING:
    from orchard.models.language.rnnsearch import RNNSearchConfig

Table = list[Rule | tuple[str, str]]


def groundhog_names(config: RNNSearchConfig) -> Table:
    """Its matrices are (in, out). Embeddings have a bias there, which goes into ours, and the output layer is a product
    of two matrices with as many columns between them as an embedding has; ours is their product."""
    if config.embedding < config.maxout or config.alignment != config.width:
        return []  # it has no such network

    def matrix(ours: str, theirs: str) -> Rule:
        return Rule(ours, (theirs,), lambda tensor: tensor.T, lambda tensor: (tensor.T,))

    def stacked(ours: str, *theirs: str) -> Rule:
        return Rule(
            ours,
            theirs,
            lambda *parts: torch.cat([part.T for part in parts]),
            lambda whole: tuple(part.T for part in whole.chunk(len(theirs))),
        )

    def embedding(ours: str, theirs: str) -> Rule:
        names = f"W_0_{theirs}_approx_embdr", f"b_0_{theirs}_approx_embdr"
        return Rule(ours, names, lambda table, bias: table + bias, lambda table: (table, torch.zeros_like(table[0])))

    def cell(ours: str, theirs: str) -> Table:
        return [
            stacked(ours + "gates.weight", f"G_{theirs}_transition_0", f"R_{theirs}_transition_0"),
            matrix(ours + "candidate.weight", f"W_{theirs}_transition_0"),
            (ours + "candidate.bias", f"b_0_{theirs}_input_embdr_0"),
        ]

    def inputs(ours: str, theirs: str) -> Rule:
        return stacked(ours, *(f"W_0_{theirs}_{part}_embdr_0" for part in ("update", "reset", "input")))

    def split_head(weight: Tensor) -> tuple[Tensor, Tensor]:
        rank = torch.eye(config.maxout, config.embedding, dtype=weight.dtype, device=weight.device)
        return rank, torch.cat([weight.T, weight.new_zeros(config.embedding - config.maxout, len(weight))])

    return [
        embedding("source_token.weight", "enc"),
        embedding("target_token.weight", "dec"),
        inputs("forward_input.weight", "enc"),
        *cell("forward_encoder.cell.", "enc"),
        inputs("backward_input.weight", "back_enc"),
        *cell("backward_encoder.cell.", "back_enc"),
        matrix("first_state.weight", "W_0_dec_initializer_0"),
        ("first_state.bias", "b_0_dec_initializer_0"),
        matrix("score.query.weight", "B_dec_transition_0"),
        matrix("score.memory.weight", "A_dec_transition_0"),
        matrix("score.out.weight", "D_dec_transition_0"),
        inputs("feedback.weight", "dec"),
        stacked("reading.weight", "W_0_dec_dec_updater_0", "W_0_dec_dec_reseter_0", "W_0_dec_dec_inputter_0"),
        *cell("cell.", "dec"),
        matrix("deep_state.weight", "W_0_dec_hid_readout_0"),
        ("deep_state.bias", "b_0_dec_hid_readout_0"),
        matrix("deep_token.weight", "W_0_dec_prev_readout_0"),
        matrix("deep_context.weight", "W_0_dec_repr_readout"),
        Rule(
            "head.weight",
            ("W1_dec_deep_softmax", "W2_dec_deep_softmax"),
            lambda left, right: (left @ right).T,
            split_head,
        ),
        ("head.bias", "b_dec_deep_softmax"),
    ]


NAMES = {"groundhog": groundhog_names}
