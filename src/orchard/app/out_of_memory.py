"""What to say when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from orchard.errors import OrchardError
from orchard.tasks.record import Task
from orchard.training.plan import less_memory
from orchard.training.settings import TrainSettings


@contextmanager
def explained(settings: TrainSettings, task: Task) -> Iterator[None]:
    """Turns running out of memory into one line that says what to try."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _error(settings, task) from error
    except RuntimeError as error:
        if "not enough memory" in str(error) or "can't allocate memory" in str(error):
            raise _error(settings, task) from error
        raise


def _error(settings: TrainSettings, task: Task) -> OrchardError:
    advice = less_memory(settings, cut=not task.whole_batch)
    return OrchardError(
        f"out of memory at a batch of {settings.batch_size} in {settings.accumulate} part(s); try {advice}"
    )
