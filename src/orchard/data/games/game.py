"""What a board game is: rules as pure functions of many boards at once.

A board (H, W) int8 is seen by the player to move: 1 is a stone of theirs, -1 one of the other's, 0 nothing. After a
move it is the other's turn, so that `play` turns all signs. A player never needs to know which colour they have, and
one network plays both (Silver et al. 2017, arXiv:1712.01815, section "Representation").
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from functools import cached_property
from typing import ClassVar

import numpy as np

FILES = "abcdefgh"  # columns of boards whose cells are named, as a1 for the cell at the top left


class Game(ABC):
    """The rules of one game. Actions are numbers from 0 to `actions` - 1."""

    rules: ClassVar[str]  # in one line, for a person who is to play
    name: str
    rows: int
    columns: int
    actions: int

    @property
    def source(self) -> str:
        return f"game:{self.name}"

    @property
    def fingerprint(self) -> str:
        """Names the rules in run.json, as the content of files does for other data."""
        return hashlib.sha256(f"{self.source} {self.rows} {self.columns} {self.actions}".encode()).hexdigest()

    @property
    def cells(self) -> int:
        return self.rows * self.columns

    @abstractmethod
    def start(self) -> np.ndarray:
        """The board (H, W) before the first move."""

    @abstractmethod
    def legal(self, boards: np.ndarray) -> np.ndarray:
        """Which actions are allowed, (N, actions) bool, on boards (N, H, W) of games that are not over."""

    @abstractmethod
    def play(self, boards: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Boards (N, H, W) after legal `actions` (N,), seen by the other player."""

    @abstractmethod
    def result(self, boards: np.ndarray) -> np.ndarray:
        """How games ended for the player to move, (N,) float64: 1 won, 0 drawn, -1 lost; NaN where they go on."""

    @abstractmethod
    def heuristic(self, boards: np.ndarray) -> np.ndarray:
        """A simple opinion of unfinished games, (N,) float64 in (-1, 1), for the player to move."""

    @abstractmethod
    def action_name(self, action: int) -> str:
        """What people call an action."""

    @abstractmethod
    def floating(self, board: np.ndarray) -> str:
        """Why no game comes to this board (H, W), or nothing where one may."""

    @cached_property
    def action_names(self) -> tuple[str, ...]:
        return tuple(self.action_name(action) for action in range(self.actions))

    @cached_property
    def symmetries(self) -> tuple[np.ndarray, np.ndarray]:
        """Ways to turn and mirror boards that change no game, the identity first: (S, cells) and (S, actions) int64.

        Way s makes the flat board `flat[cells[s]]` and the policy `policy[actions[s]]`.
        """
        return self.board_symmetries(square=self.rows == self.columns)

    def board_symmetries(self, square: bool) -> tuple[np.ndarray, np.ndarray]:
        """Where actions are cells, with or without others behind them: the eight of a square."""
        places = np.arange(self.cells).reshape(self.rows, self.columns)
        turned = [np.rot90(places, turns) for turns in range(4 if square else 1)]
        cells = np.stack([board.ravel() for one in turned for board in (one, np.fliplr(one))])
        others = np.arange(self.cells, self.actions)
        return cells, np.concatenate([cells, np.tile(others, (len(cells), 1))], axis=1)


def cell_name(cell: int, columns: int) -> str:
    """`b3`: the column's letter, and the row's number from the top."""
    return f"{FILES[cell % columns]}{cell // columns + 1}"
