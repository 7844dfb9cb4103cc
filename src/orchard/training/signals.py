"""Signals that end a training: noted, and obeyed when the step they came in is done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignal:
    """The number of the signal that came, 0 for none."""

    def __init__(self) -> None:
        self.number = 0

    @contextmanager
    def heard(self) -> Iterator[None]:
        """The first signal (Ctrl-C, SIGTERM, or SIGHUP when a terminal closes) is noted; a second Ctrl-C ends at once.
        What is ignored already (`nohup`) stays ignored."""

        def ask(number: int, frame: FrameType | None) -> None:
            if self.number and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.number = number

        heard = [one for one in STOPPING if signal.getsignal(one) is not signal.SIG_IGN]
        try:
            before = {number: signal.signal(number, ask) for number in heard}
        except ValueError:  # not the main thread: signals are its business
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
