"""How often an agent tries something else than what it thinks best."""

from __future__ import annotations


def epsilon_at(step: int, start: float, end: float, steps: int) -> float:
    """The share of random actions at an environment step: from `start` to `end` on a line, over `steps` steps."""
    return max(end, start + (end - start) * step / steps) if start > end else end
