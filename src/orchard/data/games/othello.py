"""Othello on a square board. Boards are worked on as sets of cells, one bit each, many boards at a time."""

from __future__ import annotations

import numpy as np

from orchard.data.games.game import Game, cell_name

DIRECTIONS = tuple((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0))


class Othello(Game):
    """A move encloses stones of the other between two own, in at least one direction, and turns all that it encloses.

    Who cannot move passes (the last action), and only then; where neither can, the larger number of stones has won.
    `size` is even and at most 8.
    """

    rules = "a move turns all stones that it encloses; the most stones win"

    def __init__(self, size: int = 6):
        self.name, self.rows, self.columns, self.actions = f"othello-{size}x{size}", size, size, size * size + 1
        self._bit = np.uint64(1) << np.arange(size * size, dtype=np.uint64)
        self._steps = [self._step(down, right) for down, right in DIRECTIONS]

    def _step(self, down: int, right: int) -> tuple[int, np.uint64]:
        """How far bits move in a direction, and the cells that something can arrive at."""
        rows, columns = np.divmod(np.arange(self.cells), self.columns)
        inside = (rows - down >= 0) & (rows - down < self.rows) & (columns - right >= 0) & (columns - right < self.rows)
        return down * self.columns + right, self._bit[inside].sum(dtype=np.uint64)

    @staticmethod
    def _moved(bits: np.ndarray, step: tuple[int, np.uint64]) -> np.ndarray:
        distance, arrivals = step
        moved: np.ndarray = bits << np.uint64(distance) if distance > 0 else bits >> np.uint64(-distance)
        return moved & arrivals

    def _sides(self, boards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cells of the player to move and of the other, (N,) uint64 each."""
        flat = boards.reshape(len(boards), self.cells)
        return ((flat == 1) * self._bit).sum(1, dtype=np.uint64), ((flat == -1) * self._bit).sum(1, dtype=np.uint64)

    def _spread(self, bits: np.ndarray, other: np.ndarray, step: tuple[int, np.uint64]) -> np.ndarray:
        """The unbroken rows of the other's stones that begin beside `bits`."""
        row = self._moved(bits, step) & other
        for _ in range(self.rows - 3):
            row |= self._moved(row, step) & other
        return row

    def _moves(self, own: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The cells where a stone turns some, (N,) uint64."""
        found = np.zeros_like(own)
        for step in self._steps:
            found |= self._moved(self._spread(own, other, step), step)
        return found & ~(own | other)

    def start(self) -> np.ndarray:
        board, half = np.zeros((self.rows, self.columns), np.int8), self.rows // 2
        board[half - 1, half], board[half, half - 1] = 1, 1
        board[half - 1, half - 1], board[half, half] = -1, -1
        return board

    def legal(self, boards: np.ndarray) -> np.ndarray:
        moves = self._moves(*self._sides(boards))
        return np.concatenate([(moves[:, None] & self._bit) != 0, (moves == 0)[:, None]], axis=1)

    def play(self, boards: np.ndarray, actions: np.ndarray) -> np.ndarray:
        own, other = self._sides(boards)
        placed = np.append(self._bit, np.uint64(0))[actions]
        turned = np.zeros_like(own)
        for step in self._steps:
            row = self._spread(placed, other, step)
            turned |= np.where(self._moved(row, step) & own, row, np.uint64(0))
        own, other = own | placed | turned, other & ~turned
        flat = ((other[:, None] & self._bit) != 0).astype(np.int8) - ((own[:, None] & self._bit) != 0)
        return flat.astype(np.int8).reshape(boards.shape)

    def result(self, boards: np.ndarray) -> np.ndarray:
        own, other = self._sides(boards)
        over = (self._moves(own, other) == 0) & (self._moves(other, own) == 0)
        return np.where(over, np.sign(boards.sum((1, 2), dtype=np.float64)), np.nan)

    def heuristic(self, boards: np.ndarray) -> np.ndarray:
        balance: np.ndarray = boards.sum((1, 2), dtype=np.float64) / (self.cells + 1)
        return balance

    def action_name(self, action: int) -> str:
        return "pass" if action == self.cells else cell_name(action, self.columns)

    def floating(self, board: np.ndarray) -> str:
        half = self.rows // 2
        empty = (board[half - 1 : half + 1, half - 1 : half + 1] == 0).any()
        return "one of the four cells in the middle is empty" if empty else ""
