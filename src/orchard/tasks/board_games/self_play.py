"""Games of a search with itself (Silver et al. 2017, doi:10.1038/nature24270, methods, "Self-play")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchard.data.counter_rng import uniforms
from orchard.data.games.game import Game
from orchard.tasks.board_games.search import Evaluate, Search, dirichlet, visit_policy
from orchard.tasks.board_games.settings import SelfPlaySettings


@dataclass(frozen=True)
class Round:
    """The positions of games that are over, in the order of moves, and how the games went."""

    boards: np.ndarray  # (P, H, W) int8
    policies: np.ndarray  # (P, actions) float32
    values: np.ndarray  # (P,) float32: the result for the player to move
    lengths: np.ndarray  # (games,) moves of each game
    results: np.ndarray  # (games,) of 1, 0 and -1 for the player who moved first


def play_round(game: Game, evaluate: Evaluate, settings: SelfPlaySettings, seed: int, number: int) -> Round:
    """One round of games from the start, side by side: a function of the network, `seed` and the round's `number`."""
    s = settings
    search = Search(game, evaluate, s.games, s.exploration)
    boards, games = np.repeat(game.start()[None], s.games, 0), np.arange(s.games)
    results, lengths = np.zeros(s.games), np.zeros(s.games, np.int64)
    seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    while len(games):
        ply = len(seen)
        noise = dirichlet(game.legal(boards), s.noise_concentration, s.noise, [seed, number, ply])
        visits, _ = search.run(games, boards, s.simulations, noise if s.noise else None)
        policies = visit_policy(visits, 1.0)
        seen.append((games, boards, policies))
        draws = uniforms(seed, number, games, ply + 1)[:, ply] if ply < s.temperature_moves else None
        actions = visits.argmax(1) if draws is None else draw_actions(policies, draws)
        boards = game.play(boards, actions)
        ended = game.result(boards)
        over = ~np.isnan(ended)
        lengths[games[over]] = ply + 1
        results[games[over]] = ended[over] * (-1) ** (ply + 1)
        boards, games = boards[~over], games[~over]
    values = np.concatenate([results[games] * (-1) ** ply for ply, (games, _, _) in enumerate(seen)])
    return Round(
        np.concatenate([boards for _, boards, _ in seen]),
        np.concatenate([policies for _, _, policies in seen]).astype(np.float32),
        values.astype(np.float32),
        lengths,
        results,
    )


def draw_actions(policies: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Actions (n,) with the probabilities `policies` (n, actions), by `draws` (n,) in [0, 1)."""
    limits = policies.cumsum(1)
    drawn: np.ndarray = (limits <= draws[:, None] * limits[:, -1:]).sum(1)
    return drawn
