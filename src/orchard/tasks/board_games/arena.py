"""Games between two players, and how strong a network is by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from orchard.data.counter_rng import uniforms
from orchard.data.games.game import Game
from orchard.errors import UsageError
from orchard.tasks.board_games.players import (
    SOLVABLE,
    Player,
    SearchPlayer,
    minimax_player,
    perfect_player,
    random_player,
    unique,
)
from orchard.tasks.board_games.search import Evaluate
from orchard.tasks.board_games.settings import Evaluation

AUTO = {"tic-tac-toe": "perfect", "connect-four": "minimax"}  # else greedy


@dataclass(frozen=True)
class Match:
    """Games that are over: how they ended for the first of the players, (N,) of 1, 0 and -1, and their moves."""

    results: np.ndarray
    moves: tuple[tuple[int, ...], ...]

    @property
    def points(self) -> float:
        """A win counts one, a draw a half: the mean."""
        return float((self.results.mean() + 1) / 2)


def play_match(game: Game, ours: Player, theirs: Player, count: int, *, opening: int = 0, seed: int = 0) -> Match:
    """`count` games side by side, in which `ours` moves first in every other one, beginning with the first.

    The first `opening` moves are drawn at random, alike for the two games of a pair, so that players who always answer
    alike do not play the same game again and again.
    """
    boards, games = np.repeat(game.start()[None], count, 0), np.arange(count)
    results, moves = np.zeros(count), [[] for _ in range(count)]  # type: tuple[np.ndarray, list[list[int]]]
    ply = 0
    while len(games):
        if ply < opening:
            draws = uniforms(seed, ply, games // 2, 1) + np.arange(game.actions) * 0.6180339887498949
            actions = np.where(game.legal(boards), draws % 1, -1).argmax(1)
        else:
            actions = np.empty(len(games), np.int64)
            our_turn = games % 2 == ply % 2
            for player, turn in ((ours, our_turn), (theirs, ~our_turn)):
                if turn.any():
                    actions[turn] = player(games[turn], boards[turn])
        for number, action in zip(games.tolist(), actions.tolist(), strict=True):
            moves[number].append(action)
        boards, ply = game.play(boards, actions), ply + 1
        ended = game.result(boards)
        over = ~np.isnan(ended)
        results[games[over]] = np.where(games[over] % 2 == ply % 2, ended[over], -ended[over])
        boards, games = boards[~over], games[~over]
    return Match(results, tuple(map(tuple, moves)))


def opponent_of(game: Game, settings: Evaluation, seed: int) -> tuple[str, Player]:
    """Whom strength is measured against, in words, and the player. Raises UsageError for a game too large to solve."""
    kind = AUTO.get(game.name, "greedy") if settings.opponent == "auto" else settings.opponent
    if kind == "random":
        return "random moves", random_player(game, seed)
    if kind == "greedy":
        return "a greedy player", minimax_player(game, 1, seed)
    if kind == "minimax":
        return f"minimax, {settings.depth} moves ahead", minimax_player(game, settings.depth, seed)
    if game.cells > SOLVABLE:
        raise UsageError(f"{game.name} has too many positions to be solved; set evaluation.opponent=minimax")
    return "a perfect player", perfect_player(game, seed)


def lost_positions(game: Game, player: Player, moves_first: bool) -> int:
    """In how many final positions a player has lost, whatever the other plays: all replies are tried."""
    boards, turn, lost = game.start()[None], moves_first, 0
    while len(boards):
        if turn:
            boards = game.play(boards, player(np.arange(len(boards)), boards))
        else:
            rows, actions = np.nonzero(game.legal(boards))
            boards = game.play(boards[rows], actions)
        boards, turn = unique(boards), not turn
        ended = game.result(boards)
        lost += int((ended == (-1 if turn else 1)).sum())
        boards = boards[np.isnan(ended)]
    return lost


def measure(
    game: Game, evaluate: Evaluate, settings: Evaluation, exploration: float, seed: int
) -> tuple[Mapping[str, float], Match]:
    """The strength of a network, and the games by which it was measured.

    `points` against the opponent, with the shares of `wins`, `draws` and `losses`; where all replies can be tried,
    `lost_positions` too: the ways to beat it, moving first and second.
    """
    s = settings
    ours = SearchPlayer(game, evaluate, s.games, s.simulations, exploration)
    match = play_match(game, ours, opponent_of(game, s, seed)[1], s.games, opening=s.opening, seed=seed)
    shares = {name: float((match.results == result).mean()) for name, result in OUTCOMES.items()}
    found = {"points": match.points, **shares}
    if game.cells <= SOLVABLE:
        found["lost_positions"] = float(
            sum(
                lost_positions(game, SearchPlayer(game, evaluate, 500, s.simulations, exploration), first)
                for first in (True, False)
            )
        )
    return found, match


OUTCOMES = {"wins": 1, "draws": 0, "losses": -1}
