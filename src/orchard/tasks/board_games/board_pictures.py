"""Boards as pictures: stones, and how good moves are as shades of the cells that they go to."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from orchard.data.games.game import Game
from orchard.data.games.notation import Position

CELL = 44  # pixels
GROUND, LINE, HEAT = (247, 244, 236), (176, 168, 150), (214, 93, 14)
COLOURS = {"X": (38, 38, 38), "O": (255, 255, 255)}


def landing_cells(game: Game, board: np.ndarray) -> np.ndarray:
    """The cell (actions,) int64 that each allowed move puts a stone on; -1 for other moves and for passing."""
    found = np.full(game.actions, -1)
    (actions,) = np.nonzero(game.legal(board[None])[0])
    after = game.play(np.repeat(board[None], len(actions), 0), actions)
    for action, placed in zip(actions, (after != 0) & (board == 0), strict=True):
        if placed.any():
            found[action] = placed.argmax()
    return found


def draw_board(game: Game, position: Position, policy: np.ndarray | None = None) -> Image.Image:
    """The board; with a `policy` (actions,) the cells that moves go to are the darker the likelier they are."""
    image = Image.new("RGB", (game.columns * CELL + 1, game.rows * CELL + 1), GROUND)
    pen = ImageDraw.Draw(image)
    shade = np.zeros(game.cells)
    if policy is not None:
        cells = landing_cells(game, position.board)
        shade[cells[cells >= 0]] = policy[cells >= 0] / max(policy.max(), 1e-9)
    for cell, stone in enumerate(position.stones):
        row, column = divmod(cell, game.columns)
        left, top = column * CELL, row * CELL
        fill = tuple(round(g + (h - g) * shade[cell] ** 0.7) for g, h in zip(GROUND, HEAT, strict=True))
        pen.rectangle((left, top, left + CELL, top + CELL), fill=fill, outline=LINE)
        if stone in COLOURS:
            pen.ellipse((left + 5, top + 5, left + CELL - 5, top + CELL - 5), fill=COLOURS[stone], outline=COLOURS["X"])
    return image
