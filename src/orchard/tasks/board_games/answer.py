"""Answers of a network that plays: for each position the best move, what it is worth, and how good the others are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.errors import OrchardError
from orchard.inference.artifacts import Artifact
from orchard.tasks.board_games.settings import Options

if TYPE_CHECKING:
    from rich.console import Console

TOP = 5  # moves that a line of a table names


@dataclass(frozen=True)
class MoveArtifact(Artifact):
    """The advice for one position; `policy` has the share of each allowed move, best first."""

    item: str
    move: str = ""
    value: float = 0.0
    policy: tuple[tuple[str, float], ...] = ()
    lines: tuple[str, ...] = ()  # the board, and beside it the shares in percent
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        if self.error:
            return {"position": self.item, "error": self.error}
        return {"position": self.item, "move": self.move, "value": self.value, "policy": dict(self.policy)}

    def columns(self) -> list[str]:
        return ["position", "move", "value", "policy", "error"]

    def cells(self) -> list[str]:
        policy = " ".join(f"{name}:{share:.4f}" for name, share in self.policy[:TOP])
        return [self.item, self.move, f"{self.value:.4f}" if self.move else "", policy, self.error]

    @classmethod
    def show(cls, artifacts: Iterator[MoveArtifact], console: Console) -> None:
        """The board, the shares of its moves in percent, and the best of them."""
        for one in artifacts:
            if not one.error:
                console.print("\n".join(one.lines), markup=False, highlight=False)
                best = ", ".join(f"{name} {share:.0%}" for name, share in one.policy[:TOP])
                console.print(f"play {one.move}; value {one.value:+.2f} (1 wins, -1 loses); {best}\n", highlight=False)


def answer(folder: Path, items: Sequence[str], options: Options, say: Callable[[str], None]) -> Iterator[MoveArtifact]:
    """Advice for each position, for the start of the game where none is named."""
    from orchard.inference.loading import load
    from orchard.tasks.board_games.pipeline import MovePipeline

    pipeline = MovePipeline(load(folder), simulations=options.simulations, exploration=options.exploration)
    for item in items or [""]:
        try:
            yield advise(pipeline, item)
        except OrchardError as error:
            yield MoveArtifact(item, error=str(error))


def advise(pipeline: Any, item: str) -> MoveArtifact:
    """Advice as it is shown. Raises UsageError for what is no position."""
    from orchard.data.games.notation import board_lines, read_position
    from orchard.tasks.board_games.board_pictures import landing_cells

    game = pipeline.game
    position = read_position(game, item)
    advice = pipeline(position)
    allowed = game.legal(position.board[None])[0]
    order = sorted((a for a in range(game.actions) if allowed[a]), key=lambda a: -advice.policy[a])
    cells = [f"  {stone}" for stone in position.stones]
    for action, cell in enumerate(landing_cells(game, position.board)):
        if cell >= 0:
            cells[cell] = f"{advice.policy[action]:.0%}".rjust(3)
    return MoveArtifact(
        item or position.text(),
        advice.move,
        advice.value,
        tuple((game.action_names[action], float(advice.policy[action])) for action in order),
        (f"{position.player} to move", *board_lines(game, position, cells, 4)),
    )
