"""A recurrent layer over whole segments, by torch's fused kernels, with dropout of its recurrent weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RecurrentLayer(nn.Module):
    """Segments (B, T, D) and a state, each tensor (B, n), to outputs (B, T, n) and the next state.

    `rnn` is one layer of torch's, batch first, and holds the weights. With `weight_drop` p, each recurrent weight is
    left out with that probability in training, the same ones for all rows and tokens of a call (DropConnect: Wan et al.
    2013; Merity et al. 2017, arXiv:1708.02182, section 2). Under autocast it stays in float32: there are processors
    whose library has no such layer in bfloat16.
    """

    def __init__(self, rnn: nn.LSTM | nn.GRU, *, weight_drop: float = 0.0):
        super().__init__()
        self.rnn, self.weight_drop = rnn, weight_drop

    @property
    def tensors(self) -> int:
        """Tensors in a state: state and cell, or the state alone."""
        return 2 if isinstance(self.rnn, nn.LSTM) else 1

    def forward(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        rnn: Any = self.rnn
        recurrent = F.dropout(rnn.weight_hh_l0, self.weight_drop, self.training)
        weights = [rnn.weight_ih_l0, recurrent, rnn.bias_ih_l0, rnn.bias_hh_l0]
        # biased, one layer, no dropout between layers, in training?, in one direction, batch first
        how = (True, 1, 0.0, self.training, False, True)
        with torch.autocast("cuda" if x.is_cuda else "cpu", enabled=False):
            first = [tensor.float()[None] for tensor in state]
            if isinstance(rnn, nn.LSTM):
                outputs, *last = torch.lstm(x.float(), first, weights, *how)
            else:
                outputs, *last = torch.gru(x.float(), first[0], weights, *how)
        return outputs, [tensor[0] for tensor in last]


def with_state(layers: nn.ModuleList, state: list[Tensor]) -> list[tuple[RecurrentLayer, list[Tensor]]]:
    """Each layer with its part of a state."""
    pairs, begin = [], 0
    for layer in layers:
        assert isinstance(layer, RecurrentLayer)
        pairs.append((layer, state[begin : begin + layer.tensors]))
        begin += layer.tensors
    return pairs
