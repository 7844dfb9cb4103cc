"""The one console that tables, bars and pictures are shown on: nothing in it is markup unless we say so."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from rich import console as rich
from rich.segment import Segment

from orchard.terminal import plain


class Console(rich.Console):
    """Rich's console for other people's words: brackets are brackets, and escape codes are shown.

    Where a line of ours has markup, `print(..., markup=True)` says so. Readers of stderr may leave while we work; a
    reader of stdout who has left ends it (BrokenPipeError).
    """

    def __init__(self, **options: Any):
        super().__init__(**{"markup": False, "highlight": False, "emoji": False, **options})
        self.push_render_hook(_Shown())

    def on_broken_pipe(self) -> None:
        if not self.stderr:
            raise BrokenPipeError
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class _Shown(rich.RenderHook):
    """What is to be rendered, with the characters that nobody sees as escapes."""

    def process_renderables(self, renderables: list[rich.ConsoleRenderable]) -> list[rich.ConsoleRenderable]:
        return [_Plain(one) for one in renderables]


class _Plain:
    def __init__(self, renderable: rich.RenderableType):
        self.renderable = renderable

    def __rich_console__(self, console: rich.Console, options: rich.ConsoleOptions) -> Iterable[Segment]:
        for part in console.render(self.renderable, options):
            yield part if part.control else Segment(plain(part.text), part.style)
