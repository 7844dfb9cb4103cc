"""Board games of two players in place of a data set: `game:tic-tac-toe`, `game:connect-four`, `game:othello-6x6`."""

from __future__ import annotations

from collections.abc import Callable

from orchard.data.games.game import Game
from orchard.data.games.lines import ConnectFour, TicTacToe
from orchard.data.games.othello import Othello
from orchard.errors import UsageError, unknown

GAMES: dict[str, Callable[[], Game]] = {
    "tic-tac-toe": TicTacToe,
    "connect-four": ConnectFour,
    "othello-6x6": lambda: Othello(6),
    "othello-8x8": lambda: Othello(8),
}


def open_game(source: str) -> Game:
    """The rules that `game:NAME` names. Raises UsageError for another source, or a game that there is not."""
    scheme, _, name = source.partition(":")
    if scheme != "game":
        raise UsageError(f"'{source}' names no game; expected game:NAME, one of {', '.join(GAMES)}")
    if name not in GAMES:
        raise unknown("game", name, GAMES)
    return GAMES[name]()
