"""Answers of a model of images and text: labels for images, or images for a query."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.errors import UsageError
from orchard.inference.artifacts import Artifact, ClassesArtifact
from orchard.inference.image_files import find_images
from orchard.tasks.zero_shot_image_classification.settings import Options

if TYPE_CHECKING:
    from rich.console import Console

    from orchard.inference.loading import Loaded


@dataclass(frozen=True)
class HitArtifact(Artifact):
    """An image and how well it fits a query."""

    item: str
    cosine: float
    query: str
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"picture": self.item, **({"error": self.error} if self.error else {"cosine": self.cosine})}

    def columns(self) -> list[str]:
        return ["picture", "cosine", "error"]

    def cells(self) -> list[str]:
        return [self.item, "" if self.error else f"{self.cosine:.6f}", self.error]

    @classmethod
    def show(cls, artifacts: Iterator[HitArtifact], console: Console) -> None:
        """A table: the images that fit best first."""
        from rich.table import Table
        from rich.text import Text

        hits = list(artifacts)
        table = Table(title=hits[0].query if hits else "", title_justify="left")
        table.add_column("rank", justify="right")
        table.add_column("picture")
        table.add_column("cosine", justify="right")
        for rank, hit in enumerate(hits, 1):
            if hit.error:
                table.add_row("", hit.item, Text(hit.error, "red"))
            else:
                table.add_row(str(rank), hit.item, f"{hit.cosine:.3f}")
        console.print(table)


def answer(folder: Path, items: Sequence[str], options: Options, say: Callable[[str], None]) -> Iterator[Artifact]:
    """For each image the most likely of `labels`; or, for a `query`, the images that fit it."""
    if options.labels and options.query is not None:
        raise UsageError("--labels asks what is on each picture, --query which pictures fit a text; give one of them")
    paths = find_images(items)
    from orchard.inference.loading import load
    from orchard.tasks.zero_shot_image_classification.pipeline import classifier, search

    loaded = load(folder)
    for line in _cut(loaded, options):
        say(line)
    if options.query is not None:
        for hit in search(loaded, paths, options.query, options.top):
            yield HitArtifact(hit.picture, hit.cosine, options.query, hit.error)
        return
    model = classifier(loaded, labels=options.labels, precision=options.precision, say=say)
    count = min(options.top, len(options.labels))
    for one in model.predict(paths, options.top):
        yield ClassesArtifact(one.picture, one.top, one.error, count)


def _cut(loaded: Loaded, options: Options) -> list[str]:
    """A line for what is asked in more words than the model reads."""
    from orchard.data.text_tokenizer import cut_words
    from orchard.models.image_text.clip import CLIP
    from orchard.tasks.zero_shot_image_classification.matcher import read_encoder
    from orchard.tasks.zero_shot_image_classification.pipeline import templates_for

    if not isinstance(loaded.model, CLIP):
        return []
    encoder = read_encoder(loaded.folder, loaded.model.config)
    around = templates_for(loaded, options.labels)
    texts = [options.query] if options.query is not None else [
        template.replace("{}", label) for label in options.labels for template in around
    ]  # fmt: skip
    what = "queries" if options.query is not None else "sentences around labels"
    return [f"warning: {line}" for line in cut_words(what, map(encoder.length, texts), encoder.most)]
