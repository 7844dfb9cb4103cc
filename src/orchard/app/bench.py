"""`bench`: speed beside the peer, in one run."""

from __future__ import annotations

from typing import Any

from orchard.errors import UsageError, unknown
from orchard.tasks.registry import task_of

MODES = ("inference", "training", "generation")
PRECISIONS = ("auto", "fp32", "bf16")


def bench(
    name: str,
    against: str,
    mode: str = "inference",
    *,
    batch: int | None = None,
    precision: str = "auto",
    rounds: int | None = None,
    tokens: int = 256,
) -> dict[str, Any]:
    """Time variant `name` beside `against`: a library, or a library's model such as timm:resnet50.

    `tokens` are those of a generation. Returns medians in seconds, ratios above 1 where ours is faster, and the
    share of the machine's own limit. Raises UsageError for what cannot be timed, OrchardError where the sides disagree.
    """
    known = (*PRECISIONS, "int8") if mode == "generation" else PRECISIONS
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if precision not in known:
        raise unknown("precision", precision, known)
    task = task_of(name)
    if task.peers is None:
        raise UsageError(f"{name} is for {task.name}, for which no peer is known")
    timed: dict[str, Any] = task.load(task.peers)(
        name, against, mode, batch=batch, precision=precision, rounds=rounds, tokens=tokens
    )
    return timed
