"""The latest positions of games with oneself: what was thought of them, and how their games ended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orchard.data.batches import Batch
from orchard.data.counter_rng import uniforms
from orchard.data.games.game import Game
from orchard.errors import OrchardError


@dataclass(frozen=True)
class Positions(Batch):
    """B positions, as the player to move sees them."""

    boards: Tensor  # (B, H, W) int8
    policies: Tensor  # (B, actions) float32: the search's visits, as shares
    values: Tensor  # (B,) float32: how the game ended for the player to move


class Window:
    """A ring of the last `capacity` positions."""

    def __init__(self, game: Game, capacity: int):
        self.game, self.written = game, 0
        self.arrays: dict[str, np.ndarray] = {
            "boards": np.zeros((capacity, game.rows, game.columns), np.int8),
            "policies": np.zeros((capacity, game.actions), np.float32),
            "values": np.zeros(capacity, np.float32),
        }

    @property
    def capacity(self) -> int:
        return len(self.arrays["values"])

    @property
    def held(self) -> int:
        return min(self.written, self.capacity)

    def add(self, **positions: np.ndarray) -> None:
        """Take `boards`, `policies` and `values` of so many positions, of which the last count where there are more."""
        count = len(positions["values"])
        places = np.arange(self.written, self.written + count)[-self.capacity :] % self.capacity
        for name, array in self.arrays.items():
            array[places] = positions[name][-self.capacity :]
        self.written += count

    def sample(self, count: int, seed: int, number: int) -> Positions:
        """`count` positions, each turned or mirrored somehow: a function of `seed`, `number` and what is held."""
        draws = uniforms(seed, number, np.arange(count), 2)
        rows = (draws[:, 0] * self.held).astype(np.int64)
        cells, actions = self.game.symmetries
        ways = (draws[:, 1] * len(cells)).astype(np.int64)
        boards = self.arrays["boards"][rows].reshape(count, -1)
        turned = np.take_along_axis(boards, cells[ways], 1).reshape(count, self.game.rows, self.game.columns)
        policies = np.take_along_axis(self.arrays["policies"][rows], actions[ways], 1)
        return Positions(*map(torch.from_numpy, (turned, policies, self.arrays["values"][rows])))

    def state(self) -> dict[str, Tensor]:
        held = {name: torch.from_numpy(array[: self.held]) for name, array in self.arrays.items()}
        return {**held, "written": torch.tensor(self.written)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Hold what `state` holds; raises OrchardError where it is of another game or window."""
        held, shape = len(state["values"]), tuple(state["boards"].shape[1:])
        if shape != (self.game.rows, self.game.columns) or held > self.capacity:
            raise OrchardError(
                f"the checkpoint holds {held} positions of {shape[0]} x {shape[1]} cells, this training at most "
                f"{self.capacity} of {self.game.rows} x {self.game.columns}: game and window must be as they were"
            )
        for name, array in self.arrays.items():
            array[:held] = state[name].numpy()
        self.written = int(state["written"])
