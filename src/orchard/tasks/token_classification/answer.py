"""Answers on the command line: the entities of a text, marked in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.errors import OrchardError, UsageError
from orchard.inference.artifacts import Artifact
from orchard.tasks.token_classification.settings import Options

if TYPE_CHECKING:
    from rich.console import Console

    from orchard.tasks.token_classification.pipeline import Tagged

TOGETHER = 256  # texts of a file that are tagged side by side
COLUMNS = (".conll", ".conll2003", ".bio", ".iob", ".iob2", ".bmes", ".bioes", ".bilou", ".jsonl")


@dataclass(frozen=True)
class TaggedTexts(Artifact):
    """A text with its entities, each as `Tagged.to_json` gives it."""

    item: str
    entities: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        return {"text": self.item, "entities": list(self.entities)}

    def columns(self) -> list[str]:
        return ["text", "entities", "types", "starts", "ends", "scores"]

    def cells(self) -> list[str]:
        found = self.entities
        names = ("word", "entity_group", "start", "end")
        return [
            self.item,
            *("|".join(str(one[name]) for one in found) for name in names),
            "|".join(f"{one['score']:.6f}" for one in found),
        ]

    @classmethod
    def show(cls, artifacts: Iterator[TaggedTexts], console: Console) -> None:
        """A text a line: entities stand out, each with its type and how sure that is."""
        from rich.text import Text

        styles: dict[str, str] = {}
        colours = ("green", "cyan", "magenta", "yellow", "blue", "red")
        for one in artifacts:
            line, at = Text(), 0
            for entity in one.entities:
                kind, begin, end = entity["entity_group"], entity["start"], entity["end"]
                style = styles.setdefault(kind, colours[len(styles) % len(colours)])
                line.append(one.item[at:begin])
                line.append(f"[{one.item[begin:end]}]", f"bold {style}")
                line.append(f" {kind} {entity['score']:.0%}", style)
                at = end
            line.append(one.item[at:])
            console.print(line, soft_wrap=True)


def answer(folder: Path, items: Sequence[str], options: Options, say: Callable[[str], None]) -> Iterator[TaggedTexts]:
    """The entities of each text, or of each line of files: texts, or words with or without tags (.conll, .jsonl)."""
    if not items:
        raise UsageError(
            'nothing is asked for; give a text or a file, such as orchard predict RUN "Ada lived in London."'
        )
    from orchard.inference.loading import load
    from orchard.tasks.token_classification.pipeline import WORDS, tagger_of

    loaded = load(folder)
    tagger, how = tagger_of(loaded), options.words or str(loaded.facts.get(WORDS, "words"))
    with _Columns(options.conll) as columns:
        for part in _parts(items):
            texts = [one for one in part if isinstance(one, str)]
            answers = tagger.answer(texts, how) if texts else tagger.answer_words([one for one in part if one])
            for one in answers:
                columns.write(one)
                yield TaggedTexts(one.text, tuple(one.to_json()))


def _parts(items: Sequence[str]) -> Iterator[list[Any]]:
    """Texts, or lists of words, some together; all of a part are of one kind."""
    for number, item in enumerate(items, 1):
        path = Path(item)
        if not item.strip():
            raise UsageError(f"text {number} is empty; say what is to be read")
        if len(item) > 1000 or not path.is_file():
            yield [item]
            continue
        found: list[Any] = [list(one) for one in _words(path)] if _has_words(path) else _lines(path)
        for at in range(0, len(found), TOGETHER):
            yield found[at : at + TOGETHER]


def _has_words(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(COLUMNS)


def _words(path: Path) -> Iterator[list[str]]:
    """The words of a file of columns or JSON lines; what is bad in it is an error."""
    from orchard.data.tagged_text.reading import read_tagged

    for one in read_tagged(path, None):
        if one.fault:
            raise OrchardError(f"{one.fault[0]}: {one.fault[1]}")
        yield one.words


def _lines(path: Path) -> list[str]:
    from orchard.packed import read_bytes

    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise OrchardError(f"{path} is not UTF-8; convert it, for example with iconv") from None
    found = [line for line in lines if line.strip()]
    if not found:
        raise OrchardError(f"{path} is empty; expected a text a line")
    return found


class _Columns:
    """A file with a word and its tag a line, where one is asked for; the old one stays until it is whole."""

    def __init__(self, path: str | None):
        self.path = path
        self.lines: list[str] | None = [] if path else None

    def __enter__(self) -> _Columns:
        return self

    def write(self, one: Tagged) -> None:
        if self.lines is not None:
            self.lines += [f"{word}\t{tag}\n" for word, tag in zip(one.words, one.tags, strict=True)]
            self.lines.append("\n")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        from orchard.files import atomic

        if self.path is None or self.lines is None or kind is not None:
            return
        try:
            with atomic(Path(self.path)) as file:
                file.write("".join(self.lines).encode())
        except OSError as error:
            raise OrchardError(f"{self.path} cannot be written: {error.strerror or error}") from None
