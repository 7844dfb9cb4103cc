"""Tree search for many games at once, beside a plain recursive one that searches one game after the other.

Both ask the same network about the same positions; in how many games their visits differ is printed. The plain one
keeps its numbers in dictionaries, as alpha-zero-general does. Times are of the processor (one thread), both in one run
and in turn, so that what else the machine does changes the ratio little.

    python benchmarks/search.py [--game connect-four] [--games 64] [--simulations 50] [--repeats 3]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from orchard.data.games import open_game
from orchard.data.games.game import Game
from orchard.inference.hardware import hardware
from orchard.models import create_model
from orchard.tasks.board_games.search import FIRST, Evaluate, Search, evaluator

EXPLORATION = 1.5


class PlainSearch:
    """One game at a time, one position after the other."""

    def __init__(self, game: Game, evaluate: Evaluate):
        self.game, self.evaluate = game, evaluate
        self.priors: dict[bytes, np.ndarray] = {}
        self.legal: dict[bytes, np.ndarray] = {}
        self.visits: dict[tuple[bytes, int], int] = {}
        self.means: dict[tuple[bytes, int], float] = {}
        self.seen: dict[bytes, int] = {}

    def simulate(self, board: np.ndarray) -> float:
        """The value of a position for the player who moved to it, after one more simulation."""
        key = board.tobytes()
        ended = float(self.game.result(board[None])[0])
        if not math.isnan(ended):
            return -ended
        if key not in self.priors:
            policies, values = self.evaluate(board[None])
            legal = self.game.legal(board[None])[0]
            priors = policies[0] * legal
            self.priors[key], self.legal[key], self.seen[key] = priors / priors.sum(), legal, 0
            return -float(values[0])
        best, action = -math.inf, -1
        for candidate in np.flatnonzero(self.legal[key]).tolist():
            edge = (key, candidate)
            among = math.sqrt(self.seen[key] + FIRST) / (1 + self.visits.get(edge, 0))
            score = self.means.get(edge, 0.0) + EXPLORATION * float(self.priors[key][candidate]) * among
            if score > best:
                best, action = score, candidate
        value = self.simulate(self.game.play(board[None], np.array([action]))[0])
        edge, count = (key, action), self.visits.get((key, action), 0)
        self.means[edge] = (count * self.means.get(edge, 0.0) + value) / (count + 1)
        self.visits[edge], self.seen[key] = count + 1, self.seen[key] + 1
        return -value


def plain(game: Game, evaluate: Evaluate, boards: np.ndarray, simulations: int) -> np.ndarray:
    counts = np.zeros((len(boards), game.actions), np.int64)
    for number, board in enumerate(boards):
        search = PlainSearch(game, evaluate)
        for _ in range(simulations):
            search.simulate(board)
        counts[number] = [search.visits.get((board.tobytes(), action), 0) for action in range(game.actions)]
    return counts


def together(game: Game, evaluate: Evaluate, boards: np.ndarray, simulations: int) -> np.ndarray:
    return Search(game, evaluate, len(boards), EXPLORATION).run(np.arange(len(boards)), boards, simulations)[0]


def starts(game: Game, count: int) -> np.ndarray:
    """Positions after four moves at random."""
    draw, boards = np.random.default_rng(0), np.repeat(game.start()[None], count, 0)
    for _ in range(4):
        chances = draw.random((count, game.actions)) * game.legal(boards)
        boards = game.play(boards, chances.argmax(1))
    return boards


def seconds(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", default="connect-four")
    parser.add_argument("--games", type=int, default=64)
    parser.add_argument("--simulations", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    game = open_game(f"game:{asked.game}")
    board = (game.rows, game.columns)
    evaluate = evaluator(create_model("alphazero_nano", board=board, actions=game.actions))
    boards = starts(game, asked.games)
    total = asked.games * asked.simulations
    rates: dict[str, list[float]] = {"plain": [], "together": []}
    for _ in range(asked.repeats):
        slow, expected = seconds(lambda: plain(game, evaluate, boards, asked.simulations))
        fast, found = seconds(lambda: together(game, evaluate, boards, asked.simulations))
        rates["plain"].append(total / slow)
        rates["together"].append(total / fast)
        differing = int((expected != found).any(1).sum())
        print(f"plain {total / slow:,.0f}/s, together {total / fast:,.0f}/s, {slow / fast:.1f} x; visits differ in "
              f"{differing} of {asked.games} games")  # fmt: skip
    plain_rate, together_rate = (statistics.median(rates[name]) for name in ("plain", "together"))
    print(hardware())
    print(f"{game.name}, {asked.games} games, {asked.simulations} simulations: plain {plain_rate:,.0f} simulations/s, "
          f"together {together_rate:,.0f}, {together_rate / plain_rate:.1f} x")  # fmt: skip


if __name__ == "__main__":
    main()
