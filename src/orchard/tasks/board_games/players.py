"""Who plays: a network with or without search, and opponents of known strength to measure it by."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np

from orchard.data.games.game import Game
from orchard.tasks.board_games.search import Evaluate, Search, visit_policy

# The numbers (n,) of games and their boards (n, H, W), seen by the player to move → allowed actions (n,).
Player = Callable[[np.ndarray, np.ndarray], np.ndarray]
AT_ONCE = 32  # boards that minimax looks ahead from together
LATER = 0.99  # what a value counts a move later: a win now is better than one to come
SOLVABLE = 9  # cells; all positions of such a board are looked at


class SearchPlayer:
    """The most visited move of a search of `simulations`; with 0 the network's own best. Plays `count` games."""

    def __init__(self, game: Game, evaluate: Evaluate, count: int, simulations: int, exploration: float):
        self.game, self.evaluate, self.simulations = game, evaluate, simulations
        self.search = Search(game, evaluate, count, exploration)

    def __call__(self, games: np.ndarray, boards: np.ndarray) -> np.ndarray:
        if self.simulations:
            # One more than asked for: the first only looks at a position that was not seen.
            visits, _ = self.search.run(games, boards, self.simulations + 1)
            return visit_policy(visits, 0).argmax(1)
        policies, _ = self.evaluate(boards)
        return np.where(self.game.legal(boards), policies, -1).argmax(1)


class ValuePlayer:
    """The move with the largest value; of equals one at random, by `seed`. `values(boards)` is -inf for other moves."""

    def __init__(self, values: Callable[[np.ndarray], np.ndarray], seed: int):
        self.values, self.draw = values, np.random.default_rng(seed)

    def __call__(self, games: np.ndarray, boards: np.ndarray) -> np.ndarray:
        values = self.values(boards)
        best = values >= values.max(1, keepdims=True) - 1e-9
        return np.where(best, self.draw.random(values.shape), -1).argmax(1)


def action_values(game: Game, boards: np.ndarray, values: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What each move is worth, (n, actions), by the `values` of what it leads to; -inf where it is not allowed."""
    rows, actions = np.nonzero(game.legal(boards))
    found = np.full((len(boards), game.actions), -np.inf)
    found[rows, actions] = -LATER * values(game.play(boards[rows], actions))
    return found


def minimax(game: Game, boards: np.ndarray, depth: int) -> np.ndarray:
    """Values (n,) for the player to move, `depth` moves ahead, where unfinished games count by the heuristic."""
    found = game.result(boards)
    (going,) = np.nonzero(np.isnan(found))
    if not len(going):
        return found
    if depth:
        found[going] = action_values(game, boards[going], lambda after: minimax(game, after, depth - 1)).max(1)
    else:
        found[going] = game.heuristic(boards[going])
    return found


def minimax_player(game: Game, depth: int, seed: int) -> ValuePlayer:
    """Looks `depth` moves ahead; of one move it is a greedy player."""

    def values(boards: np.ndarray) -> np.ndarray:
        parts = [boards[start : start + AT_ONCE] for start in range(0, len(boards), AT_ONCE)]
        return np.concatenate(
            [action_values(game, part, lambda after: minimax(game, after, depth - 1)) for part in parts]
        )

    return ValuePlayer(values, seed)


def positions(game: Game) -> Iterator[np.ndarray]:
    """All positions (n, H, W) that are reached in 0, 1, 2, ... moves, each once."""
    boards = game.start()[None]
    while len(boards):
        yield boards
        boards = boards[np.isnan(game.result(boards))]
        rows, actions = np.nonzero(game.legal(boards))
        boards = unique(game.play(boards[rows], actions))


def unique(boards: np.ndarray) -> np.ndarray:
    """Boards (n, H, W) without repetitions."""
    flat = np.ascontiguousarray(boards).reshape(len(boards), boards[0].size if len(boards) else 1)
    _, first = np.unique(flat.view(f"V{flat.shape[1]}").ravel(), return_index=True)
    return boards[np.sort(first)]


@functools.cache
def solve(game: Game) -> Callable[[np.ndarray], np.ndarray]:
    """The values (n,) of boards (n, H, W) for the player to move, found from the ends of the game.

    Only for boards of at most `SOLVABLE` cells.
    """
    known: dict[bytes, float] = {}

    def lookup(boards: np.ndarray) -> np.ndarray:
        return np.array([known[board.tobytes()] for board in boards])

    for boards in reversed(list(positions(game))):
        values = game.result(boards)
        (going,) = np.nonzero(np.isnan(values))
        if len(going):
            values[going] = action_values(game, boards[going], lookup).max(1)
        known.update(zip((board.tobytes() for board in boards), values.tolist(), strict=True))
    return lookup


def perfect_player(game: Game, seed: int) -> ValuePlayer:
    """Never gives away a result of a game that can be solved."""
    return ValuePlayer(lambda boards: action_values(game, boards, solve(game)), seed)


def random_player(game: Game, seed: int) -> ValuePlayer:
    """Any allowed move."""
    return ValuePlayer(lambda boards: np.where(game.legal(boards), 0.0, -np.inf), seed)
