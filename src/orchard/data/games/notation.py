"""Positions as people write them: moves from the start (`b2 a1`), or a board (`X../.O./... X`).

X is who moves first. Of a board the rows come from the top, separated by `/`, with `.` for an empty cell; behind it
stands who is to move, where the stones alone do not tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchard.data.games.game import FILES, Game
from orchard.errors import UsageError

STONES = {"X": 1, "O": -1, ".": 0}


@dataclass(frozen=True)
class Position:
    """A board (H, W) int8 as the player to move sees it, and who that is."""

    board: np.ndarray
    player: str  # "X" or "O"

    @property
    def other(self) -> str:
        return "O" if self.player == "X" else "X"

    def after(self, game: Game, action: int) -> Position:
        """Raises UsageError for a move that is not allowed, with those that are."""
        allowed = game.legal(self.board[None])[0]
        if not allowed[action]:
            names = ", ".join(game.action_names[place] for place in np.flatnonzero(allowed))
            raise UsageError(f"{self.player} cannot play {game.action_names[action]} here; allowed: {names}")
        return Position(game.play(self.board[None], np.array([action]))[0], self.other)

    def outcome(self, game: Game) -> str:
        """How the game ended, in words; nothing where it goes on."""
        result = game.result(self.board[None])[0]
        if np.isnan(result):
            return ""
        return f"{self.player if result > 0 else self.other} has won" if result else "a draw"

    def text(self) -> str:
        """The board and who is to move, as `read_position` takes them."""
        signs = {side * (1 if self.player == "X" else -1): sign for sign, side in STONES.items()}
        return "/".join("".join(signs[int(cell)] for cell in row) for row in self.board) + f" {self.player}"

    @property
    def stones(self) -> list[str]:
        """X, O or . for every cell, from the top left on."""
        return list(self.text()[:-2].replace("/", ""))


def start_of(game: Game) -> Position:
    return Position(game.start(), "X")


def read_action(game: Game, word: str) -> int:
    """An action by its name; UsageError where the game has none of that name."""
    if word.lower() not in game.action_names:
        first, last = game.action_names[0], game.action_names[game.cells - 1 if game.actions > game.cells else -1]
        also = " or pass" if "pass" in game.action_names else ""
        raise UsageError(f"'{word}' is no move of {game.name}; expected {first} to {last}{also}")
    return game.action_names.index(word.lower())


def read_position(game: Game, text: str) -> Position:
    """A position of moves or of a board. Raises UsageError for what is neither, a wrong move or an impossible board."""
    if "/" in text:
        return _read_board(game, text)
    position = start_of(game)
    for number, word in enumerate(text.replace(",", " ").split(), 1):
        if ended := position.outcome(game):
            raise UsageError(f"'{text}': the game is over before move {number}, {word}: {ended}")
        try:
            position = position.after(game, read_action(game, word))
        except UsageError as error:
            raise UsageError(f"'{text}', move {number}: {error}") from None
    return position


def _read_board(game: Game, text: str) -> Position:
    words = text.upper().split()
    rows = words[0].replace("-", ".").replace("_", ".").split("/")
    if [len(row) for row in rows] != [game.columns] * game.rows:
        raise UsageError(f"'{text}': expected {game.rows} rows of {game.columns} cells for {game.name}, with / between")
    if strange := set("".join(rows)) - set(STONES):
        raise UsageError(f"'{text}' has '{min(strange)}' on its board; expected X, O and . for an empty cell")
    first = np.array([[STONES[sign] for sign in row] for row in rows], np.int8)
    if len(words) > 2 or (len(words) == 2 and words[1] not in ("X", "O")):
        raise UsageError(f"'{text}': expected X or O behind the board, for who is to move")
    if len(words) == 1 and game.actions > game.cells:  # where players may pass, the stones do not tell
        raise UsageError(f"'{text}': say who is to move, as in '{words[0]} X'")
    player = words[1] if len(words) == 2 else "X" if first.sum() == 0 else "O"
    board = first if player == "X" else -first
    if why := game.floating(board):
        raise UsageError(f"'{text}' cannot be: {why}")
    return Position(board, player)


def board_lines(game: Game, position: Position, cells: list[str] | None = None, width: int = 1) -> list[str]:
    """The board as lines for a terminal, with the names of columns and rows around it.

    `cells` stand in place of the stones where there are some, each `width` characters wide.
    """
    named = game.action_names[0] == "a1"
    names = list(FILES[: game.columns]) if named else [str(n + 1) for n in range(game.columns)]
    shown = cells or position.stones
    lines = ["   " + " ".join(name.center(width) for name in names)]
    for row in range(game.rows):
        label = f"{row + 1} " if named else "  "
        line = shown[row * game.columns : (row + 1) * game.columns]
        lines.append(" " + label + " ".join(cell.center(width) for cell in line))
    return [line.rstrip() for line in lines]
