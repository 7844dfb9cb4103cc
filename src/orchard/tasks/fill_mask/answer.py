"""Answers on the command line: the words that fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.errors import UsageError
from orchard.inference.artifacts import Artifact, TextArtifact
from orchard.tasks.fill_mask.settings import Options

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class FilledText(Artifact):
    """A text, the words for each [MASK] in it with their probabilities, and the text with the likeliest of them."""

    item: str
    masks: tuple[tuple[tuple[str, float], ...], ...]
    best: str

    def to_json(self) -> dict[str, Any]:
        masks = [[{"token": word, "probability": p} for word, p in top] for top in self.masks]
        return {"text": self.item, "masks": masks, "filled": self.best}

    def columns(self) -> list[str]:
        return ["text", "filled", "tokens", "probabilities"]

    def cells(self) -> list[str]:
        """Words of one [MASK] stand between bars, those of several after one another."""
        words = ["|".join(word.strip() for word, _ in top) for top in self.masks]
        shares = ["|".join(f"{p:.6f}" for _, p in top) for top in self.masks]
        return [self.item, self.best, " ".join(words), " ".join(shares)]

    @classmethod
    def show(cls, artifacts: Iterator[FilledText], console: Console) -> None:
        """A table: the likeliest word for each [MASK], and the others beside it."""
        from rich.table import Table
        from rich.text import Text

        table = Table("text", "word")
        table.add_column("probability", justify="right")
        table.add_column("then")
        for one in artifacts:
            for number, ((word, p), *others) in enumerate(one.masks):
                rest = ", ".join(f"{other.strip()} {q:.1%}" for other, q in others)
                item = "" if number else one.item
                table.add_row(Text(item), Text(word.strip()), f"{p:.1%}", Text(rest))
        console.print(table)


def answer(folder: Path, items: Sequence[str], options: Options, say: object) -> Iterator[Artifact]:
    """The words for each [MASK], or with `steps` whole texts in which all are filled in."""
    if not items:
        raise UsageError('nothing is asked for; give a text, such as orchard predict RUN "The [MASK] is good."')
    from orchard.inference.loading import load
    from orchard.tasks.fill_mask.gibbs import Gibbs
    from orchard.tasks.fill_mask.pipeline import MaskFiller

    filler = MaskFiller(load(folder))
    if options.steps:
        how = Gibbs(options.steps, options.steps // 2, options.top_k, options.temperature)
        for item in items:
            yield from (
                TextArtifact(item, text) for text in filler.sample(item, how, seed=options.seed, count=options.count)
            )
        return
    for filled in filler(items, top=options.top):
        yield FilledText(filled.text, filled.masks, filled.best)
