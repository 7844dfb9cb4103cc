"""A trained network at work: moves for positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orchard.data.games import GAMES, open_game
from orchard.data.games.game import Game
from orchard.data.games.notation import Position, read_position
from orchard.errors import UsageError
from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.board_games import TASK
from orchard.tasks.board_games.search import Search, evaluator
from orchard.tasks.board_games.settings import SelfPlaySettings


@dataclass(frozen=True)
class Advice:
    """What to play: the move, the value in [-1, 1] for the player to move, and the shares of all moves (actions,)."""

    move: str
    action: int
    value: float
    policy: np.ndarray


@dataclass
class MovePipeline:
    """Says the best move of a position of the game that the network has learned, by a search.

    A position is text (moves as `b2 a1`, or a board as `X../.O./... X`) or a `Position`. Raises UsageError for a model
    of another task, and for what is no position or a game that is over.
    """

    loaded: Loaded
    simulations: int = field(default=100, kw_only=True)
    exploration: float | None = field(default=None, kw_only=True)  # None: as in training

    def __post_init__(self) -> None:
        self.game = game_of(self.loaded)
        self.evaluate = evaluator(base.on_device(self.loaded.model)[0])

    def __call__(self, positions: str | Position | Sequence[str | Position]) -> Any:
        """Advice for one position, or a list of it for several."""
        if isinstance(positions, str | Position):
            return self._advise(positions)
        return [self._advise(position) for position in positions]

    def _advise(self, asked: str | Position) -> Advice:
        game = self.game
        position = read_position(game, asked) if isinstance(asked, str) else asked
        if ended := position.outcome(game):
            raise UsageError(f"'{position.text()}': the game is over, {ended}")
        boards = position.board[None]
        if self.simulations:
            search = Search(game, self.evaluate, 1, self.exploration or exploration_of(self.loaded))
            visits, values = search.run(np.array([0]), boards, self.simulations + 1)
            policy, value = visits[0] / visits[0].sum(), values[0]
        else:
            policies, values = self.evaluate(boards)
            allowed = np.where(game.legal(boards), policies, 0)[0]
            policy, value = allowed / allowed.sum(), values[0]
        action = int(policy.argmax())
        return Advice(game.action_names[action], action, float(value), policy)


def game_of(loaded: Loaded, source: str = "") -> Game:
    """The game that a model has learned, or an official one is for.

    Raises UsageError for a model of another task, or of another game than `source`.
    """
    if loaded.task != TASK.name:
        raise UsageError(f"{loaded.folder} is for {loaded.task}; moves are said by models for {TASK.name}")
    config: Any = loaded.model.config
    games = [make() for make in GAMES.values()]
    fitting = [game for game in games if ((game.rows, game.columns), game.actions) == (config.board, config.actions)]
    if not fitting:
        rows, columns = config.board
        raise UsageError(f"{loaded.folder} is for {rows} x {columns} cells and {config.actions} moves: no known game")
    if source and open_game(source).source != fitting[0].source:
        raise UsageError(f"{loaded.folder} has learned {fitting[0].source}, not {source}")
    return fitting[0]


def exploration_of(loaded: Loaded) -> float:
    """c_puct of the search in the model's training."""
    return float(loaded.facts.get("exploration", SelfPlaySettings().exploration))
