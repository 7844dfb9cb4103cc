"""Games that are won by stones in a line: tic-tac-toe and connect four."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from orchard.data.games.game import Game, cell_name

DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))


def lines(rows: int, columns: int, length: int) -> np.ndarray:
    """Every line of `length` cells, (cells, lines) float32 with 1 where a line has a cell."""
    found = []
    for row in range(rows):
        for column in range(columns):
            for down, right in DIRECTIONS:
                line = [(row + n * down, column + n * right) for n in range(length)]
                if all(0 <= r < rows and 0 <= c < columns for r, c in line):
                    found.append([r * columns + c for r, c in line])
    table = np.zeros((rows * columns, len(found)), np.float32)
    for number, cells in enumerate(found):
        table[cells, number] = 1
    return table


class LineGame(Game):
    """Whoever has `length` stones in a row, a column or a diagonal first has won; a full board is a draw."""

    length: int

    @cached_property
    def _lines(self) -> np.ndarray:
        return lines(self.rows, self.columns, self.length)

    def start(self) -> np.ndarray:
        return np.zeros((self.rows, self.columns), np.int8)

    def result(self, boards: np.ndarray) -> np.ndarray:
        flat = boards.reshape(len(boards), self.cells)
        sums = flat.astype(np.float32) @ self._lines
        found = np.where((flat != 0).all(1), 0.0, np.nan)
        found[(sums == self.length).any(1)] = 1.0
        found[(sums == -self.length).any(1)] = -1.0
        return found

    def heuristic(self, boards: np.ndarray) -> np.ndarray:
        flat = boards.reshape(len(boards), self.cells)
        mine, theirs = ((flat == side).astype(np.float32) @ self._lines for side in (1, -1))
        balance = (mine**2 * (theirs == 0) - theirs**2 * (mine == 0)).sum(1)
        value: np.ndarray = balance.astype(np.float64) / (self._lines.shape[1] * self.length**2)
        return value

    def floating(self, board: np.ndarray) -> str:
        mine, theirs = int((board == 1).sum()), int((board == -1).sum())
        if theirs - mine not in (0, 1):
            return f"it has {theirs} stones of one player and {mine} of the other, who is to move"
        sums = board.reshape(-1).astype(np.float32) @ self._lines
        return "the player to move has already won" if (sums == self.length).any() else ""


class TicTacToe(LineGame):
    name, rows, columns, actions, length = "tic-tac-toe", 3, 3, 9, 3
    rules = "three in a row, a column or a diagonal win"

    def legal(self, boards: np.ndarray) -> np.ndarray:
        return boards.reshape(len(boards), self.cells) == 0

    def play(self, boards: np.ndarray, actions: np.ndarray) -> np.ndarray:
        after = -boards.reshape(len(boards), self.cells)
        after[np.arange(len(boards)), actions] = -1
        return after.reshape(boards.shape)

    def action_name(self, action: int) -> str:
        return cell_name(action, self.columns)


class ConnectFour(LineGame):
    """Stones fall to the lowest free cell of a column; an action is a column."""

    name, rows, columns, actions, length = "connect-four", 6, 7, 7, 4
    rules = "stones fall; four in a row, a column or a diagonal win"

    def legal(self, boards: np.ndarray) -> np.ndarray:
        return boards[:, 0] == 0

    def play(self, boards: np.ndarray, actions: np.ndarray) -> np.ndarray:
        after, every = -boards, np.arange(len(boards))
        after[every, (boards[every, :, actions] == 0).sum(1) - 1, actions] = -1
        return after

    def action_name(self, action: int) -> str:
        return str(action + 1)

    def floating(self, board: np.ndarray) -> str:
        if ((board[:-1] != 0) & (board[1:] == 0)).any():
            return "a stone hangs in the air"
        return super().floating(board)

    @cached_property
    def symmetries(self) -> tuple[np.ndarray, np.ndarray]:
        cells, _ = self.board_symmetries(square=False)
        columns = np.arange(self.columns)
        return cells, np.stack([columns, columns[::-1]])
