"""What a policy and value network learns from: the search's policies, and how games ended."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from orchard.models.control.alphazero import policy_value_losses
from orchard.tasks.board_games.replay import Positions
from orchard.training.learner import Learner
from orchard.training.phases import Phase


class SelfPlayLearner(Learner):
    """A network and, where newer ones must beat it first, the best so far, which plays (AlphaGo Zero, "Evaluator")."""

    def __init__(self, network: nn.Module, gated: bool):
        super().__init__()
        self.network = network
        self.best = copy.deepcopy(network).requires_grad_(False) if gated else None

    @property
    def player(self) -> nn.Module:
        """The network whose games are learned from."""
        return self.network if self.best is None else self.best

    def layer_groups(self) -> list[tuple[str, ...]]:
        network: Any = self.network
        return [tuple(f"network.{name}" for name in group) for group in network.layer_groups()]


class SelfPlayObjective:
    """The loss and the metrics of a `SelfPlayLearner`. `lately()` tells of the last games with itself."""

    logged: Sequence[str] = (
        "points", "wins", "draws", "losses", "lost_positions", "policy_loss", "value_loss", "policy_entropy",
        "game_length", "first_player_points", "gate_points",
    )  # fmt: skip

    def __init__(self, lately: Callable[[], Mapping[str, float]]):
        self.lately = lately
        self.phases = (Phase("", self.loss, ("network.",)),)

    def loss(self, learner: Any, batch: Positions, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(z - v)² - π · log p, the mean of the batch."""
        losses = policy_value_losses(learner.network, batch.boards, batch.policies, batch.values)
        entropy = torch.special.entr(batch.policies).sum(1).mean()  # below which no policy loss can be
        figures = {name: torch.tensor(value) for name, value in self.lately().items()}
        metrics = {"policy_loss": losses["policy"].detach(), "value_loss": losses["value"].detach()}
        return losses["total"], {**metrics, "policy_entropy": entropy, **figures}
