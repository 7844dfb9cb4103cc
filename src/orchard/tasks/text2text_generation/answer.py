"""Answers on the command line: a text, or several, for each source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.errors import UsageError
from orchard.inference.artifacts import Artifact
from orchard.tasks.text2text_generation.settings import Options

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class WrittenTexts(Artifact):
    """What was written for a source, best first; of a beam with the scores it was ranked by."""

    item: str
    texts: tuple[str, ...]
    scores: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        table: dict[str, Any] = {"source": self.item, "text": self.texts[0]}
        if len(self.texts) > 1:
            table["texts"] = list(self.texts)
        if self.scores:
            table["scores"] = list(self.scores)
        return table

    def columns(self) -> list[str]:
        return ["source", *(f"text_{n}" for n in range(1, len(self.texts) + 1))]

    def cells(self) -> list[str]:
        return [self.item, *self.texts]

    @classmethod
    def show(cls, artifacts: Iterator[WrittenTexts], console: Console) -> None:
        """One text a line."""
        for one in artifacts:
            for text in one.texts:
                console.print(text, soft_wrap=True)


def answer(folder: Path, items: Sequence[str], options: Options, say: Callable[[str], None]) -> Iterator[WrittenTexts]:
    """`count` texts for each source: the best of a beam search, or samples where a sampling option is given."""
    if not items:
        raise UsageError('nothing is asked for; give a text, such as orchard generate RUN "Ein Hund läuft."')
    empty = next((number for number, item in enumerate(items, 1) if not item.strip()), None)
    if empty:
        raise UsageError(f"text {empty} is empty; say what is to be read")
    if options.count > options.beam and not _samples(options):
        raise UsageError(f"a beam of {options.beam} has no {options.count} texts; give --beam {options.count}")
    from orchard.data.text_tokenizer import cut_words
    from orchard.inference.loading import load
    from orchard.inference.sampling import Sampling, sampling_from
    from orchard.tasks.text2text_generation.pipeline import writer_of

    writer = writer_of(load(folder))
    for line in cut_words("texts", map(writer.encoder.tokens, items), writer.encoder.length):
        say(f"warning: {line}")
    if _samples(options):
        written = writer.sample(items, sampling_from(Sampling(), options), options.count, options.seed)
        yield from (WrittenTexts(item, tuple(texts)) for item, texts in zip(items, written, strict=True))
        return
    found = writer.search(items, writer.beam(options.beam, options.count, options.length_penalty))
    for item, hypotheses in zip(items, found, strict=True):
        texts = tuple(writer.decode(hypothesis.tokens) for hypothesis in hypotheses)
        yield WrittenTexts(item, texts, tuple(hypothesis.score for hypothesis in hypotheses))


def _samples(options: Options) -> bool:
    return (options.temperature, options.top_k, options.top_p) != (None, None, None)
