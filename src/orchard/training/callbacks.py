"""What a person's own code is told during a training, and how it ends one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchard.errors import UsageError

ON_STEP, ON_EPOCH = "on_step", "on_epoch"


@dataclass(frozen=True)
class Moment:
    """Where a training stands.

    Args:
        step: optimizer steps that are done.
        steps: those that were asked for.
        epoch: passes over the training data.
        seconds: time spent so far, that before a resumption included.
        metrics: in `on_step` of this step (loss, lr, grad_norm, ...), in `on_epoch` of the validation split.
    """

    step: int
    steps: int
    epoch: float
    seconds: float
    metrics: Mapping[str, float]


class StopTraining(Exception):
    """Raised by a callback to end the training after this step, as returning False does; its text is the reason."""


class Callback:
    """What `train(..., callbacks=[...])` calls. Any object with one of the two methods will do.

    A training ends where a method returns False or raises `StopTraining`: it is then evaluated, written and reported,
    and `metrics.json` says why it stopped. Any other exception comes out of `train`, and the same call resumes from the
    last checkpoint. What a callback keeps is not stored: a resumed training calls it from where it goes on. Of several
    processes the first alone calls it.
    """

    def on_step(self, moment: Moment) -> bool | None:
        """After every optimizer step, with the metrics of that step."""

    def on_epoch(self, moment: Moment) -> bool | None:
        """After every evaluation (an epoch, or `evaluate_steps`), with the metrics of the validation split."""


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """UsageError for an object that has none of the methods."""
    for place, callback in enumerate(callbacks):
        if not any(callable(getattr(callback, name, None)) for name in (ON_STEP, ON_EPOCH)):
            raise UsageError(
                f"callbacks[{place}] is a {type(callback).__name__} without a method on_step(moment) or "
                "on_epoch(moment)"
            )


def call(callbacks: Sequence[Any], method: str, moment: Moment) -> str:
    """Call every callback that has the method; why the training is to stop, or nothing."""
    why = ""
    for callback in callbacks:
        asked = getattr(callback, method, None)
        if asked is None:
            continue
        try:
            ended, reason = asked(moment) is False, ""
        except StopTraining as stop:
            ended, reason = True, str(stop)
        if ended and not why:
            by = f"{type(callback).__name__} ended the training after step {moment.step} of {moment.steps}"
            why = f"{by}: {reason}" if reason else by
    return why
