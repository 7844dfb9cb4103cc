"""The gated network of a transformer's block (Shazeer 2020, arXiv:2002.05202)."""

from __future__ import annotations

from torch import Tensor, nn


class GatedMlp(nn.Module):
    """One linear map gives values and gates; values times activated gates go through a second, (..., D) → (..., D).

    With GELU it is GEGLU, with SiLU SwiGLU. The first map's rows are the values', then the gates'.
    """

    def __init__(self, width: int, hidden: int, activation: nn.Module, *, bias: bool = True, dropout: float = 0.0):
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * hidden, bias=bias)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        values, gates = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(self.dropout(values * self.activation(gates)))
