"""The tree search of AlphaGo Zero and AlphaZero, for many games at once (doi:10.1038/nature24270, "Search algorithm").

A simulation walks from the position of the game down to one that was not seen before, each time to the move with the
largest Q + U: what the move gave on average, and c_puct · prior · √(visits of the position) / (1 + visits of the move).
The network values the new position; every move on the way learns of it, with the sign turned from player to player.
All games walk side by side, so that a simulation of all of them is one pass of the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from orchard.data.games.game import Game
from orchard.tasks.board_games.forest import Forest

# Boards (n, H, W) → policies (n, actions) over all moves, allowed or not, and values (n,) for the player to move.
Evaluate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
FIRST = 1e-8  # added to the visits of a position, so that priors decide between moves before any was tried


@dataclass(frozen=True)
class RootNoise:
    """Dirichlet noise (G, actions) over allowed moves, and its share in the priors at the root."""

    noise: np.ndarray
    share: float


def dirichlet(legal: np.ndarray, concentration: float, share: float, seed: list[int]) -> RootNoise:
    """Noise over the allowed moves (G, actions) of G positions, a function of `seed`."""
    drawn = np.random.default_rng(seed).standard_gamma(concentration, legal.shape) * legal
    return RootNoise(drawn / np.maximum(drawn.sum(1, keepdims=True), 1e-300), share)


class Search:
    """Searches of `count` games, which remember what they have seen from move to move."""

    def __init__(self, game: Game, evaluate: Evaluate, count: int, exploration: float):
        self.game, self.evaluate, self.exploration = game, evaluate, exploration
        self.forest = Forest(game, count)

    def run(
        self, games: np.ndarray, boards: np.ndarray, simulations: int, noise: RootNoise | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search from `boards` (n, H, W), where `games` (n,) are and are not over.

        The visits (n, actions) of the moves, those of earlier searches of the game too, and the mean value (n,) of what
        they led to. The first simulation of a position that was not seen before only looks at it.
        """
        roots = self.forest.find(games, boards)
        for _ in range(simulations):
            self._simulate(games, roots, noise)
        visits = self.forest.visits[roots].copy()
        return visits, self.forest.totals[roots].sum(1) / np.maximum(visits.sum(1), 1)

    def _simulate(self, games: np.ndarray, roots: np.ndarray, noise: RootNoise | None) -> None:
        forest, rows = self.forest, roots.copy()
        path: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        walking = np.arange(len(games))
        while True:
            here = rows[walking]
            inside = forest.expanded[here]
            walking, here = walking[inside], here[inside]
            if not len(walking):
                break
            actions = self._best(here, None if path or noise is None else noise, walking)
            path.append((walking, here, actions))
            rows[walking] = self._follow(games[walking], here, actions)
        values = np.nan_to_num(forest.results[rows])
        new = np.flatnonzero(np.isnan(forest.results[rows]))
        if len(new):
            policies, values[new] = self.evaluate(forest.boards[rows[new]])
            forest.expand(rows[new], policies)
        for walking, here, actions in reversed(path):
            values[walking] *= -1
            forest.visits[here, actions] += 1
            forest.totals[here, actions] += values[walking]

    def _best(self, rows: np.ndarray, noise: RootNoise | None, walking: np.ndarray) -> np.ndarray:
        """The move with the largest Q + U of each position; of equals the first."""
        forest = self.forest
        visits, priors = forest.visits[rows], forest.priors[rows]
        if noise is not None:
            priors = (1 - noise.share) * priors + noise.share * noise.noise[walking]
        among = np.sqrt(visits.sum(1, keepdims=True) + FIRST)
        scores = forest.totals[rows] / np.maximum(visits, 1) + self.exploration * priors * among / (1 + visits)
        best: np.ndarray = np.where(forest.legal[rows], scores, -np.inf).argmax(1)
        return best

    def _follow(self, games: np.ndarray, rows: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The positions that moves lead to, found or made where they were not tried before."""
        forest = self.forest
        following = forest.children[rows, actions]
        untried = np.flatnonzero(following < 0)
        if len(untried):
            after = self.game.play(forest.boards[rows[untried]], actions[untried])
            following[untried] = forest.find(games[untried], after)
            forest.children[rows[untried], actions[untried]] = following[untried]
        return following


def visit_policy(visits: np.ndarray, temperature: float) -> np.ndarray:
    """Visits (n, actions) as policies ∝ visits^(1 / temperature); at 0 the most visited move, of equals the first."""
    if temperature == 0:
        return np.eye(visits.shape[1])[visits.argmax(1)]
    powers = (visits / visits.max(1, keepdims=True)) ** (1 / temperature)
    policies: np.ndarray = powers / powers.sum(1, keepdims=True)
    return policies


def evaluator(network: nn.Module) -> Evaluate:
    """What a policy and value network thinks of boards, on its device; it is put into evaluation mode."""
    device = next(network.parameters()).device
    network.eval()

    def evaluate(boards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            found: Any = network(torch.from_numpy(boards).to(device))
            return found.log_policy.float().exp().double().cpu().numpy(), found.value.double().cpu().numpy()

    return evaluate
