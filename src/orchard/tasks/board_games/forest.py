"""The positions that searches of many games have come to, in arrays that all games share.

A position is a row: how often each of its moves was tried, what that gave, and where it leads. A game knows its rows by
their boards, so that a position which several orders of moves lead to is one row, as in alpha-zero-general; the papers
have a tree in which it would be several.
"""

from __future__ import annotations

import numpy as np

from orchard.data.games.game import Game


class Forest:
    """Positions of `count` games. Arrays grow by doubling; a row belongs to one game."""

    def __init__(self, game: Game, count: int):
        self.game, self.length = game, 0
        self.rows: list[dict[bytes, int]] = [{} for _ in range(count)]
        self.boards = np.empty((0, game.rows, game.columns), np.int8)
        self.results = np.empty(0)  # for the player to move; NaN where the game goes on
        self.expanded = np.empty(0, bool)
        self.legal = np.empty((0, game.actions), bool)
        self.priors = np.empty((0, game.actions))
        self.visits = np.empty((0, game.actions), np.int64)
        self.totals = np.empty((0, game.actions))  # sums of the values that each move led to
        self.children = np.empty((0, game.actions), np.int64)  # -1 where a move was not tried
        self._grow(64 * count)

    def _grow(self, capacity: int) -> None:
        for name in ("boards", "results", "expanded", "legal", "priors", "visits", "totals", "children"):
            array = getattr(self, name)
            larger = np.empty((capacity, *array.shape[1:]), array.dtype)
            larger[: self.length] = array[: self.length]
            setattr(self, name, larger)

    def find(self, games: np.ndarray, boards: np.ndarray) -> np.ndarray:
        """The rows (n,) int64 of `boards` (n, H, W) in `games` (n,); made where there are none."""
        found = np.empty(len(games), np.int64)
        new: list[int] = []
        for place, (number, board) in enumerate(zip(games.tolist(), boards, strict=True)):
            key, rows = board.tobytes(), self.rows[number]
            row = rows.get(key, -1)
            if row < 0:
                row = rows[key] = self.length + len(new)
                new.append(place)
            found[place] = row
        if new:
            self._add(boards[new])
        return found

    def _add(self, boards: np.ndarray) -> None:
        begin, end = self.length, self.length + len(boards)
        if end > len(self.boards):
            self._grow(2 * end)
        self.boards[begin:end], self.results[begin:end] = boards, self.game.result(boards)
        self.legal[begin:end], self.expanded[begin:end] = self.game.legal(boards), False
        self.priors[begin:end], self.visits[begin:end], self.totals[begin:end] = 0, 0, 0
        self.children[begin:end] = -1
        self.length = end

    def expand(self, rows: np.ndarray, policies: np.ndarray) -> None:
        """Give positions the network's `policies` (n, actions), shared among the moves that are allowed."""
        allowed = self.legal[rows]
        priors = np.where(allowed, policies, 0.0)
        sums = priors.sum(1, keepdims=True)
        even = allowed / allowed.sum(1, keepdims=True)
        self.priors[rows] = np.where(sums > 0, priors / np.where(sums > 0, sums, 1), even)
        self.expanded[rows] = True
