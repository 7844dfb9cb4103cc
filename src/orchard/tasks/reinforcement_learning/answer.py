"""Answers of an agent: the episodes it plays, and a film of the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.errors import UsageError
from orchard.inference.artifacts import Artifact
from orchard.tasks.reinforcement_learning.settings import Options

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class EpisodeArtifact(Artifact):
    """One episode: the sum of its rewards, its length, and the file of its film where there is one."""

    item: str  # the environment
    number: int
    score: float
    length: int
    film: str = ""

    def to_json(self) -> dict[str, Any]:
        table = {"environment": self.item, "episode": self.number, "return": self.score, "length": self.length}
        return {**table, **({"film": self.film} if self.film else {})}

    def columns(self) -> list[str]:
        return ["environment", "episode", "return", "length", "film"]

    def cells(self) -> list[str]:
        return [self.item, str(self.number), f"{self.score:g}", str(self.length), self.film]

    @classmethod
    def show(cls, artifacts: Iterator[EpisodeArtifact], console: Console) -> None:
        """A table, and the mean where there are several."""
        from rich.table import Table

        table = Table("environment", "episode")
        for column in ("return", "length"):
            table.add_column(column, justify="right")
        scores, films = [], []
        for one in artifacts:
            table.add_row(one.item, str(one.number), f"{one.score:g}", str(one.length))
            scores.append(one.score)
            films += [one.film] if one.film else []
        console.print(table)
        if len(scores) > 1:
            console.print(f"mean return {sum(scores) / len(scores):g}")
        for film in films:
            console.print(f"film: {film}", soft_wrap=True)


def answer(
    folder: Path, items: Sequence[str], options: Options, say: Callable[[str], None]
) -> Iterator[EpisodeArtifact]:
    """Episodes in the environment of the training, or in each of `items`."""
    from orchard.inference.loading import load
    from orchard.tasks.reinforcement_learning.film import write_film
    from orchard.tasks.reinforcement_learning.pipeline import Player

    if options.out and len(items) > 1:
        raise UsageError(f"--out is one film; name one environment, not {len(items)}")
    loaded = load(folder)
    for source in items or [""]:
        player = Player(loaded, source, seed=options.seed)
        if options.out:
            write_film(player.film(), options.out)
        for one in player(options.episodes):
            film = str(options.out) if options.out and one.number == 0 else ""
            yield EpisodeArtifact(player.source, one.number, one.score, one.length, film)
