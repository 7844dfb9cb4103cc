"""AlphaZero: one network that sees a board and says which moves are good and who will win.

Silver et al. 2017, arXiv:1712.01815, and before it AlphaGo Zero, doi:10.1038/nature24270. A tree search asks it at
every position that it comes to; games that the search plays with itself are what it learns from.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark


@dataclass(frozen=True)
class AlphaZeroConfig:
    board: tuple[int, int]  # rows and columns
    actions: int
    channels: int  # of every convolution
    hidden: tuple[int, ...]  # fully connected layers: of the value alone in the tower, of both outputs without one
    blocks: int = 0  # of the residual tower; 0: four plain convolutions
    dropout: float = 0.0  # behind fully connected layers, without a tower

    def __post_init__(self) -> None:
        if not self.blocks and min(self.board) < 5:
            raise ValueError(
                f"without a tower two convolutions do not pad: expected 5 rows and columns, got {self.board}"
            )


@dataclass(frozen=True)
class PolicyValue:
    """What a network thinks of B boards, for the player to move."""

    log_policy: Tensor  # (B, actions): the logarithm of how good each move is, of those not allowed too
    value: Tensor  # (B,) in [-1, 1]: 1 where it is sure to win


class PolicyValueNetwork(nn.Module):
    """Boards (B, rows, columns) in float or int8, 1 for own stones and -1 for the other's → `PolicyValue`."""

    config: AlphaZeroConfig

    def checked(self, boards: Tensor) -> Tensor:
        """Boards as numbers of the network's type; raises ValueError for another shape, or integers other than int8."""
        if boards.ndim != 3 or tuple(boards.shape[1:]) != tuple(self.config.board):
            rows, columns = self.config.board
            raise ValueError(f"expected boards of shape (B, {rows}, {columns}), got {tuple(boards.shape)}")
        if not boards.is_floating_point() and boards.dtype != torch.int8:
            raise ValueError(f"expected boards in float or int8, got {boards.dtype}")
        return boards.to(next(self.parameters()).dtype)


class PlainNetwork(PolicyValueNetwork):
    """Four convolutions, of which the last two do not pad, and fully connected layers (alpha-zero-general)."""

    def __init__(self, config: AlphaZeroConfig):
        super().__init__()
        self.config = c = config
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for number, padding in enumerate((1, 1, 0, 0)):
            self.convolutions.append(nn.Conv2d(c.channels if number else 1, c.channels, 3, padding=padding))
            self.norms.append(nn.BatchNorm2d(c.channels))
        self.hidden, self.hidden_norms = nn.ModuleList(), nn.ModuleList()
        width = c.channels * (c.board[0] - 4) * (c.board[1] - 4)
        for features in c.hidden:
            self.hidden.append(nn.Linear(width, features))
            self.hidden_norms.append(nn.BatchNorm1d(features))
            width = features
        self.policy_head, self.value_head = nn.Linear(width, c.actions), nn.Linear(width, 1)

    def forward(self, boards: Tensor) -> PolicyValue:
        x = self.checked(boards)[:, None]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x)))
        x = x.flatten(1)
        for layer, norm in zip(self.hidden, self.hidden_norms, strict=True):
            x = F.dropout(F.relu(norm(layer(x))), self.config.dropout, self.training)
        return PolicyValue(F.log_softmax(self.policy_head(x), 1), torch.tanh(self.value_head(x)).squeeze(1))

    def layer_groups(self) -> list[tuple[str, ...]]:
        groups = [(f"convolutions.{n}.", f"norms.{n}.") for n in range(len(self.convolutions))]
        groups += [(f"hidden.{n}.", f"hidden_norms.{n}.") for n in range(len(self.hidden))]
        return [*groups, ("policy_head.", "value_head.")]


def conv_norm_relu(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class ResidualBlock(nn.Module):
    """conv - norm - ReLU - conv - norm, and what came in is added before the last ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = conv_norm_relu(channels, channels, 3)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class ResidualNetwork(PolicyValueNetwork):
    """The papers' tower (AlphaGo Zero, methods, "Neural network architecture"): own and other stones are two planes."""

    def __init__(self, config: AlphaZeroConfig):
        super().__init__()
        self.config = c = config
        cells = c.board[0] * c.board[1]
        self.stem = conv_norm_relu(2, c.channels, 3)
        self.blocks = nn.ModuleList(ResidualBlock(c.channels) for _ in range(c.blocks))
        self.policy_maps = conv_norm_relu(c.channels, 2, 1)
        self.policy_head = nn.Linear(2 * cells, c.actions)
        self.value_maps = conv_norm_relu(c.channels, 1, 1)
        widths = [cells, *c.hidden]
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.value_head = nn.Linear(widths[-1], 1)

    def forward(self, boards: Tensor) -> PolicyValue:
        boards = self.checked(boards)
        x = self.stem(torch.stack([boards.clamp(min=0), (-boards).clamp(min=0)], 1))
        for block in self.blocks:
            x = block(x)
        policy = self.policy_head(self.policy_maps(x).flatten(1))
        value = self.value_maps(x).flatten(1)
        for layer in self.hidden:
            value = F.relu(layer(value))
        return PolicyValue(F.log_softmax(policy, 1), torch.tanh(self.value_head(value)).squeeze(1))

    def layer_groups(self) -> list[tuple[str, ...]]:
        heads = ("policy_maps.", "policy_head.", "value_maps.", "hidden.", "value_head.")
        return [("stem.",), *((f"blocks.{n}.",) for n in range(len(self.blocks))), heads]


def build(config: AlphaZeroConfig) -> PolicyValueNetwork:
    """The network of a configuration: with a tower where it has blocks."""
    return ResidualNetwork(config) if config.blocks else PlainNetwork(config)


def policy_value_losses(model: nn.Module, boards: Tensor, policies: Tensor, values: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of the search's policies (B, actions), squared error of the games' results (B,), and their sum.

    The loss of arXiv:1712.01815, equation 1, without the decay of the weights, which is the optimizer's.
    """
    found = cast(PolicyValue, model(boards))
    policy_loss = -(policies * found.log_policy.float()).sum(1).mean()
    value_loss = F.mse_loss(found.value.float(), values)
    return {"policy": policy_loss, "value": value_loss, "total": policy_loss + value_loss}


def alpha_zero_general_names(config: AlphaZeroConfig) -> list[tuple[str, str]]:
    """suragnair/alpha-zero-general, othello/pytorch: layers numbered from 1, the outputs as fc3 and fc4."""
    names = []
    for n in range(4):
        names += [(f"convolutions.{n}.{{}}", f"conv{n + 1}.{{}}"), (f"norms.{n}.{{}}", f"bn{n + 1}.{{}}")]
    for n in range(len(config.hidden)):
        names += [(f"hidden.{n}.{{}}", f"fc{n + 1}.{{}}"), (f"hidden_norms.{n}.{{}}", f"fc_bn{n + 1}.{{}}")]
    last = len(config.hidden)
    return [*names, ("policy_head.{}", f"fc{last + 1}.{{}}"), ("value_head.{}", f"fc{last + 2}.{{}}")]


def example(config: AlphaZeroConfig, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Boards with a third of the cells of each kind."""
    return {"boards": torch.randint(-1, 2, (count, *config.board), generator=generator).float()}


OTHELLO = ((6, 6), 37)
VARIANTS = {
    "alphazero_nano": AlphaZeroConfig((3, 3), 9, channels=32, hidden=(32,), blocks=2),
    "alphazero_general": AlphaZeroConfig(*OTHELLO, channels=512, hidden=(1024, 512), dropout=0.3),
    "alphazero": AlphaZeroConfig(*OTHELLO, channels=256, hidden=(256,), blocks=19),
}
LANDMARK = Landmark(
    model=build, variants=VARIANTS, names={"alpha-zero-general": alpha_zero_general_names}, example=example
)
