"""A limit on how long a call of somebody else's code may take."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orchard.errors import OrchardError


@contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """Raise OrchardError where the body takes longer; `what` says of what it had to wait for.

    It goes by the alarm signal, so it needs the main thread and a system that has one; elsewhere nothing is limited.
    An alarm that somebody else has set goes on afterwards.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise OrchardError(f"{what} took longer than {seconds:g} s; look for what it waits for, or allow it more time")

    began = time.monotonic()
    before = signal.signal(signal.SIGALRM, ring)
    waiting, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        left = max(waiting - (time.monotonic() - began), 1e-3) if waiting else 0.0
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.signal(signal.SIGALRM, before)
