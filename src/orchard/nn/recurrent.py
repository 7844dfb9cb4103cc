"""Recurrent cells over padded sequences, and the gated recurrent unit as it was first published.

Cells are called as torch's: `cell(x, state)` with x (B, D) gives the next state, one tensor (B, n) or, of an LSTM, two.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]  # what a cell keeps, each (B, n); the first is what others see of it


class GRUCell(nn.Module):
    """The gated recurrent unit of Cho et al. 2014 (arXiv:1406.1078, section 2.3): input (B, 3n), state (B, n).

    z = σ(x_z + U_z s), r = σ(x_r + U_r s), s̃ = tanh(x + U (r ∘ s) + b), new state (1 - z) ∘ s + z ∘ s̃ (written as in
    Bahdanau et al. 2014, arXiv:1409.0473, appendix A.1.1). The input's share is made outside, for all steps in one
    product, in the order z, r, candidate. torch.nn.GRUCell applies the reset gate after the matrix and lets z weight
    the old state: weights learned with one do not suit the other.
    """

    def __init__(self, hidden_size: int):
        super().__init__()
        self.hidden_size = hidden_size
        self.gates = nn.Linear(hidden_size, 2 * hidden_size, bias=False)  # rows of U_z, then of U_r
        self.candidate = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        update, reset = (x[:, : 2 * self.hidden_size] + self.gates(state)).sigmoid().chunk(2, dim=-1)
        candidate = (x[:, 2 * self.hidden_size :] + self.candidate(reset * state)).tanh()
        return torch.lerp(state, candidate, update)


class Recurrent(nn.Module):
    """A cell over sequences (B, T, D), from a state of zeros → its state after each token, (B, T, n), and the last one.

    `backward` reads from the last token to the first. Where `mask` (B, T) is false the state stays as it is, so that
    padding on either side changes nothing, and no length has to be known outside the device.
    """

    def __init__(self, cell: nn.Module, *, backward: bool):
        super().__init__()
        self.cell = cell
        self.backward = backward

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, State]:
        steps = list(zip(x.unbind(1), mask[..., None].unbind(1), strict=True))
        state = zeros(self.cell, x)
        outputs = []
        for step, seen in reversed(steps) if self.backward else steps:
            new = advance(self.cell, step, state)
            state = tuple(torch.where(seen, now, before) for now, before in zip(new, state, strict=True))
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if self.backward else outputs, dim=1), state


def zeros(cell: nn.Module, like: Tensor) -> State:
    """The state from which a cell starts, for the B rows of `like`, of its type and on its device."""
    tensors = 2 if isinstance(cell, nn.LSTMCell) else 1
    return tuple(like.new_zeros(like.shape[0], int(cell.hidden_size)) for _ in range(tensors))  # type: ignore[arg-type]


def advance(cell: nn.Module, x: Tensor, state: State) -> State:
    """One step of any cell: inputs (B, D) and a state to the next state."""
    new = cell(x, state if len(state) > 1 else state[0])
    return new if isinstance(new, tuple) else (new,)
