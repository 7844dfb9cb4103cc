"""The transformer's block, as objects put together: which attention, which network, which norm."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.ops import StochasticDepth


class Mlp(nn.Module):
    """Two linear maps with an activation between, (..., D) → (..., D) (Vaswani et al. 2017, section 3.3)."""

    def __init__(self, width: int, hidden: int, activation: nn.Module, *, dropout: float = 0.0):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.activation = activation
        self.fc2 = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc2(self.dropout(self.activation(self.fc1(x)))))


class PreNormBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): the norm stands before each branch, (B, T, D) → (B, T, D).

    `drop_path` is the probability that a sample skips a branch (Huang et al. 2016).
    """

    def __init__(self, norm1: nn.Module, attention: nn.Module, norm2: nn.Module, mlp: nn.Module, *, drop_path: float):
        super().__init__()
        self.norm1 = norm1
        self.attention = attention
        self.norm2 = norm2
        self.mlp = mlp
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
