"""The two errors a person may see, and the words that help them on.

Everything that can go wrong outside our own code is raised as one of these, with a message of one or two
lines that says what is at fault, what was expected and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OrchardError(Exception):
    """The work failed: a bad file, a full disk, a loss that is not a number. Exit code 1."""

    exit_code = 1


class UsageError(OrchardError):
    """The call was wrong: an unknown name, a setting that does not exist. Exit code 2."""

    exit_code = 2


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name nobody knows, with the nearest known ones."""
    known = list(known)
    lowered = {candidate.lower(): candidate for candidate in reversed(known)}
    near = [lowered[key] for key in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
    if near:
        advice = f"did you mean {' or '.join(near)}?"
    elif len(known) <= 12:
        advice = f"known: {', '.join(known)}"
    else:
        advice = f"{len(known)} are known, {known[0]} among them"
    return UsageError(f"unknown {kind} '{name}'; {advice}")


def first_line(error: BaseException) -> str:
    """The first line of what another library's error says, at a length that fits on one."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]
