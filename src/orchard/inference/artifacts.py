"""Answers: what a model gives back, shown in a terminal, as JSON and as lines of a table.

A task's `answer` yields artifacts one by one; a verb shows, writes or sends them without knowing the task. Read without
torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from orchard.terminal import plain

if TYPE_CHECKING:
    from rich.console import Console


class Artifact(ABC):
    """One answer. `error` says why there is none, and for what."""

    single: ClassVar[bool] = False  # the one answer of its call: JSON is the value itself, not a list
    streams: ClassVar[bool] = False  # shown piece by piece where it is the only one
    item: str  # what was asked about
    error: str = ""

    @abstractmethod
    def to_json(self) -> Any:
        """The answer as JSON has it."""

    def columns(self) -> list[str]:
        """The names of the cells, for the first line of a table."""
        return list(self.to_json())

    def cells(self) -> list[str]:
        """The answer as one line of a table."""
        return [str(value) for value in self.to_json().values()]

    @classmethod
    @abstractmethod
    def show(cls, artifacts: Iterator[Any], console: Console) -> None:
        """Show all answers of a call to a person."""


@dataclass(frozen=True)
class ClassesArtifact(Artifact):
    """Classes of an image or a text with their probabilities, most likely first."""

    item: str
    top: tuple[tuple[str, float], ...] = ()
    error: str = ""
    count: int = 0  # of classes in a line of a table
    what: str = "picture"  # that was asked about

    def to_json(self) -> dict[str, Any]:
        if self.error:
            return {self.what: self.item, "error": self.error}
        return {self.what: self.item, "top": [{"class": name, "probability": p} for name, p in self.top]}

    def columns(self) -> list[str]:
        ranks = [f"{what}_{n}" for n in range(1, self.count + 1) for what in ("class", "probability")]
        return [self.what, *ranks, "error"]

    def cells(self) -> list[str]:
        found = [cell for name, p in self.top for cell in (name, f"{p:.6f}")]
        return [self.item, *found, *[""] * (2 * self.count - len(found)), self.error]

    @classmethod
    def show(cls, artifacts: Iterator[ClassesArtifact], console: Console) -> None:
        """A table: the most likely class, and the others beside it."""
        from rich.table import Table
        from rich.text import Text

        table: Table | None = None
        for one in artifacts:
            if table is None:
                table = Table(one.what, "answer")
                table.add_column("probability", justify="right")
                table.add_column("then")
            if one.error:
                table.add_row(plain(one.item), "", "", Text(one.error, "red"))
            else:
                (name, p), *others = one.top
                rest = ", ".join(f"{other} {q:.1%}" for other, q in others)
                table.add_row(one.item, name, f"{p:.1%}", rest)
        console.print(table)


@dataclass(frozen=True)
class EmbeddingArtifact(Artifact):
    """The features of an image or a text: D numbers."""

    item: str
    values: tuple[float, ...] = ()
    error: str = ""
    what: str = "picture"

    def to_json(self) -> dict[str, Any]:
        if self.error:
            return {self.what: self.item, "error": self.error}
        return {self.what: self.item, "features": list(self.values)}

    def columns(self) -> list[str]:
        return [self.what, "error", *(f"feature_{n}" for n in range(1, len(self.values) + 1))]

    def cells(self) -> list[str]:
        return [self.item, self.error, *(f"{value:.7g}" for value in self.values)]

    @classmethod
    def show(cls, artifacts: Iterator[EmbeddingArtifact], console: Console) -> None:
        """A table with how many numbers there are, and the first of them."""
        from rich.table import Table
        from rich.text import Text

        table: Table | None = None
        for one in artifacts:
            if table is None:
                table = Table(one.what)
                table.add_column("features", justify="right")
                table.add_column("the first of them")
            if one.error:
                table.add_row(one.item, "", Text(one.error, "red"))
            else:
                table.add_row(one.item, str(len(one.values)), ", ".join(f"{value:.3f}" for value in one.values[:6]))
        console.print(table)


@dataclass(frozen=True)
class LabelsArtifact(Artifact):
    """All classes that an image has, with their probabilities, most likely first; it may have none."""

    item: str
    labels: tuple[tuple[str, float], ...] = ()
    error: str = ""
    what: str = "picture"

    def to_json(self) -> dict[str, Any]:
        if self.error:
            return {self.what: self.item, "error": self.error}
        return {self.what: self.item, "labels": [{"class": name, "probability": p} for name, p in self.labels]}

    def columns(self) -> list[str]:
        return [self.what, "labels", "probabilities", "error"]

    def cells(self) -> list[str]:
        names, shares = (
            "|".join(name for name, _ in self.labels),
            "|".join(f"{p:.6f}" for _, p in self.labels),
        )
        return [self.item, names, shares, self.error]

    @classmethod
    def show(cls, artifacts: Iterator[LabelsArtifact], console: Console) -> None:
        """A table: the labels of each image."""
        from rich.table import Table
        from rich.text import Text

        table: Table | None = None
        for one in artifacts:
            table = table or Table(one.what, "labels")
            said = ", ".join(f"{name} {p:.1%}" for name, p in one.labels) or "none"
            table.add_row(one.item, Text(one.error, "red") if one.error else said)
        console.print(table)


@dataclass(frozen=True)
class NumbersArtifact(Artifact):
    """Numbers of an image by their names."""

    item: str
    values: tuple[tuple[str, float], ...] = ()
    error: str = ""
    names: tuple[str, ...] = ()  # of all numbers, for a table
    what: str = "picture"

    def to_json(self) -> dict[str, Any]:
        if self.error:
            return {self.what: self.item, "error": self.error}
        return {self.what: self.item, "numbers": dict(self.values)}

    def columns(self) -> list[str]:
        return [self.what, *self.names, "error"]

    def cells(self) -> list[str]:
        found = [f"{value:.7g}" for _, value in self.values] or [""] * len(self.names)
        return [self.item, *found, self.error]

    @classmethod
    def show(cls, artifacts: Iterator[NumbersArtifact], console: Console) -> None:
        """A table with a column for each number."""
        from rich.table import Table
        from rich.text import Text

        table: Table | None = None
        for one in artifacts:
            if table is None:
                table = Table(one.what, *one.names, "")
                for column in table.columns[1:-1]:
                    column.justify = "right"
            table.add_row(one.item, *(one.cells()[1:-1]), Text(one.error, "red"))
        console.print(table)


@dataclass(frozen=True)
class TextArtifact(Artifact):
    """A prompt and the text that continues it; `pieces` gives it as it is written, where it is still to come."""

    streams: ClassVar[bool] = True
    item: str
    text: str = ""
    pieces: Iterator[str] | None = None

    def to_json(self) -> dict[str, Any]:
        return {"prompt": self.item, "text": self.text + "".join(self.pieces or ())}

    @classmethod
    def show(cls, artifacts: Iterator[TextArtifact], console: Console) -> None:
        """Texts one below the other; one that is still being written appears piece by piece."""
        out = console.file
        for number, one in enumerate(artifacts):
            first = (
                next(one.pieces, "") if one.pieces is not None else ""
            )  # a bad prompt is an error before it is shown
            out.write(plain(("\n---\n" if number else "") + one.item + one.text + first))
            for piece in one.pieces or ():
                out.write(plain(piece))
                out.flush()
        out.write("\n")


@dataclass(frozen=True)
class ImageFiles(Artifact):
    """The images that were made for a prompt, as files; `classes` of a model that makes images of classes."""

    item: str
    seed: int
    pictures: tuple[str, ...]
    sheet: str = ""
    scores: tuple[float, ...] = ()
    animation: str = ""
    classes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        table: dict[str, Any] = {"prompt": self.item, "seed": self.seed, "pictures": list(self.pictures)}
        if self.sheet:
            table["sheet"] = self.sheet
        if self.animation:
            table["animation"] = self.animation
        if self.scores:
            table["scores"] = list(self.scores)
        if self.classes:
            table["classes"] = list(self.classes)
        return table

    @classmethod
    def show(cls, artifacts: Iterator[ImageFiles], console: Console) -> None:
        """Where the images are."""
        for one in artifacts:
            where = one.animation or one.sheet or one.pictures[0]
            best = f" (best: {one.pictures[0]}, cosine {one.scores[0]:.3f})" if one.scores else ""
            words = f"{one.item}: " if one.item else ""
            console.print(f"{words}{where}{best}", soft_wrap=True)


@dataclass(frozen=True)
class Summary(Artifact):
    """What one call did, as a sentence and as values."""

    single: ClassVar[bool] = True
    sentence: str
    values: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return self.values

    @classmethod
    def show(cls, artifacts: Iterator[Summary], console: Console) -> None:
        for one in artifacts:
            console.print(one.sentence, soft_wrap=True)
