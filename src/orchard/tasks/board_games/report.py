"""The report of a network that plays: how strong it became, games against its opponent, and what it thinks of moves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from orchard.data.games.game import Game
from orchard.data.games.notation import Position, read_action, start_of
from orchard.files import read_json
from orchard.report.charts import percent, short
from orchard.report.pictures import data_uri
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.board_games.board_pictures import draw_board
from orchard.tasks.board_games.search import Search, evaluator
from orchard.training.run import RunFolder

SHOWN = 6  # games, and positions of one of them
SEARCHED = 100  # simulations of what the search is shown to think


def write_report(
    run: RunFolder, *, game: Game, split: str, opponent: str, network: nn.Module, exploration: float
) -> Path:
    """Write report.html about a run whose other files are written, and return its path."""
    figures = run.metrics().reported
    games = read_json(run / "evaluation" / f"{split}.json")["games"]
    tiles = [
        Tile(f"{split.capitalize()} points", short(figures["points"]), f"of {len(games)} games against {opponent}"),
        Tile("Won", percent(figures["wins"]), "of its games"),
        Tile("Drawn", percent(figures["draws"]), "of its games"),
        Tile("Lost", percent(figures["losses"]), "of its games"),
    ]
    if "lost_positions" in figures:
        tiles.append(Tile("Ways to beat it", short(figures["lost_positions"]), "of all replies to its moves"))
    longest = max(range(len(games)), key=lambda number: len(games[number]["moves"]))
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=[
            Curve("Strength", "points", f"points against {opponent}"),
            Curve("Ways to beat it", "lost_positions", "final positions", falling=True),
            Curve("Policy loss", "policy_loss", "cross-entropy", falling=True),
            Curve("Value loss", "value_loss", "squared error", falling=True),
            Curve("Entropy of the search", "policy_entropy", "nats: the policy loss cannot be less", falling=True),
            Curve("Length of games with itself", "game_length", "moves"),
            Curve("Points of the first player", "first_player_points", "of games with itself"),
            Curve("Newest against best", "gate_points", "points"),
        ],
        more_facts={"game": game.name, "rules": game.rules, "opponent": opponent},
        report_split=split,
        points=figures["points"],
        opponent=opponent,
        games=[_shown(game, number, one) for number, one in enumerate(games[:SHOWN])],
        thoughts=_thoughts(game, games[longest]["moves"], network, exploration),
    )


def _played(game: Game, moves: Sequence[str]) -> list[Position]:
    """Every position of a game, the last one too."""
    found = [start_of(game)]
    for move in moves:
        found.append(found[-1].after(game, read_action(game, move)))
    return found


def _shown(game: Game, number: int, one: dict[str, Any]) -> dict[str, str]:
    """The end of a game, in which the network was X where its number is even."""
    ended = {1: "won", 0: "drawn", -1: "lost"}[round(one["result"])]
    picture = data_uri(draw_board(game, _played(game, one["moves"])[-1]))
    return {"picture": picture, "title": f"{ended} as {'OX'[number % 2 == 0]}", "moves": " ".join(one["moves"])}


def _thoughts(game: Game, moves: Sequence[str], network: nn.Module, exploration: float) -> list[dict[str, str]]:
    """Positions of a game with the policy of the network alone, and of a search."""
    positions, evaluate = _played(game, moves)[:-1], evaluator(network)
    places = np.unique(np.linspace(0, len(positions) - 1, SHOWN).round().astype(int))
    found = []
    for place in places.tolist():
        position = positions[place]
        boards = position.board[None]
        policies, values = evaluate(boards)
        visits, _ = Search(game, evaluate, 1, exploration).run(np.array([0]), boards, SEARCHED)
        alone = policies[0] * game.legal(boards)[0]
        found.append(
            {
                "network": data_uri(draw_board(game, position, alone)),
                "search": data_uri(draw_board(game, position, visits[0].astype(float))),
                "title": f"move {place + 1}, {position.player}: value {values[0]:+.2f}",
            }
        )
    return found
