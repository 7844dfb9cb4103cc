"""A training that is stopped on the way, as by Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from orchard.training.loop import Trainer
from orchard.training.state import Interrupted


@contextmanager
def stopped_after(step: int, steps: int) -> Iterator[None]:
    """The training inside is stopped after `step` of its `steps`, and says so."""
    take = Trainer.step

    def stopping(self: Trainer, batches: Any) -> None:
        take(self, batches)
        if self.state.step == step:
            self.signal.number = signal.SIGINT

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted, match=f"after step {step} of {steps}"):
        patch.setattr(Trainer, "step", stopping)
        yield
