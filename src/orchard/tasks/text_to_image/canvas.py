"""What a person sees while pictures are being painted: on a terminal they grow, elsewhere a line tells of each."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from orchard.console import Console

if TYPE_CHECKING:
    from PIL import Image

    from orchard.tasks.text_to_image.preview import Progress

SIDE = 20  # characters, and twice as many half ones, that a preview is wide and high at most
SECONDS = 5  # at least, between two lines where there is no terminal
HALF = "▀"  # its upper half has the colour of the text, its lower that of the ground


class Canvas:
    """Follows a painting; `prompts` are those of all pictures, in their order."""

    def __init__(self, prompts: Sequence[str]):
        self.prompts = prompts
        self.console = Console(stderr=True)
        terminal = self.console.is_terminal
        self.live = Live(console=self.console, refresh_per_second=8, transient=True) if terminal else None
        self.previews: list[Image.Image] = []
        self.before: int | None = None  # pictures of a table that were there already
        self.told = -math.inf

    def __enter__(self) -> Canvas:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def watch(self, growth: Progress) -> None:
        """The pictures that are being painted have grown by one code."""
        first = growth.first + (self.before or 0)
        last = first + growth.count
        if self.live is None:
            over = growth.told == growth.of and (last == len(self.prompts) or time.monotonic() - self.told > SECONDS)
            if over:
                words = f"painted {last} of {len(self.prompts)}: {self.prompts[last - 1]}"
                self.console.print(words)
                self.told = time.monotonic()
            return
        self.previews = growth.previews or self.previews
        cells = [self._cell(growth, self.prompts[first + place], place) for place in range(growth.count)]
        said = f"pictures {first + 1} to {last} of {len(self.prompts)}"
        self.live.update(Group(Text(said), Columns(cells, padding=(1, 2))))

    def rows(self, number: int, count: int) -> None:
        """So many lines of a table are there, of `count` pictures each; the first call says where it begins."""
        if self.before is None:
            self.before = number * count

    def _cell(self, growth: Progress, words: str, place: int) -> RenderableType:
        prompt = Text(words, no_wrap=True, overflow="ellipsis")
        prompt.truncate(SIDE, overflow="ellipsis")
        bar = ProgressBar(total=growth.of, completed=growth.told, width=SIDE)
        drawn = half_blocks(self.previews[place]) if place < len(self.previews) else Text()
        return Group(drawn, prompt, bar)  # a bar does not end its line


def half_blocks(picture: Image.Image, side: int = SIDE) -> Text:
    """A picture as coloured text: each character is one pixel above another."""
    small = picture.convert("RGB")
    small.thumbnail((side, 2 * (side // 2)))
    width, height = small.size
    rows = np.asarray(small).tolist()
    colours = [["#{:02x}{:02x}{:02x}".format(*pixel) for pixel in row] for row in rows]
    if height % 2:
        colours.append(["default"] * width)
    text = Text()
    for above, below in zip(colours[::2], colours[1::2], strict=True):
        for upper, lower in zip(above, below, strict=True):
            text.append(HALF, f"{upper} on {lower}")
        text.append("\n")
    text.rstrip()
    return text
