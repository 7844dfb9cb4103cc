"""How often an agent tries something else than what it thinks best."""

from __future__ import annotations

from orchard.tasks.reinforcement_learning.settings import ReinforcementSettings


def epsilon_at(step: int, start: float, end: float, steps: int) -> float:
    """The share of random actions at a step: from `start` to `end` on a line, over `steps` steps."""
    return max(end, start + (end - start) * step / steps) if start > end else end


def epsilon_of(settings: ReinforcementSettings, taken: int) -> float:
    """The share after `taken` steps of the agent, which stays what it is until the first update."""
    s = settings
    return epsilon_at(max(taken - s.learning_starts, 0), s.epsilon_start, s.epsilon_end, s.epsilon_steps)
