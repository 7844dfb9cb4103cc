"""What the explanations share: a bar for long work, the names of files, and the page of a gallery."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.progress import track

from orchard.console import Console
from orchard.report.charts import write_page

T = TypeVar("T")


@dataclass(frozen=True)
class Shown:
    """One entry of the page: data URIs with what each is, and what is said of them."""

    name: str
    pictures: tuple[tuple[str, str], ...]  # (what it is, data URI)
    answers: tuple[tuple[str, float], ...] = ()  # classes and probabilities
    note: str = ""


def with_bar(items: Iterable[T], words: str, total: int) -> Iterator[T]:
    """The items, with a bar on stderr where that is a terminal."""
    console = Console(stderr=True)
    yield from track(items, words, total, console=console, disable=not console.is_terminal, transient=True)


def file_name(words: str, taken: set[str]) -> str:
    """`words` as the name of a PNG file that no other of this call has."""
    stem = re.sub(r"[^\w.-]+", "_", words).strip("._") or "image"
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return f"{name}.png"


def write_gallery(out: Path, title: str, lead: str, words: str, shown: list[Shown]) -> Path:
    """explain.html in `out`."""
    template = Path(__file__).with_name("explain.html.jinja")
    return write_page(out / "explain.html", template, title=title, lead=lead, words=words, shown=shown)
