"""The metric by which checkpoints are selected and models compared. Read without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    name: str
    larger_is_better: bool
    percent: bool = False  # a share that people read in per cent
    selects: bool = True  # False: of several evaluations the last one is kept, whatever its value

    def score(self, value: float) -> float:
        """The value with its sign turned where smaller is better; always the same where it does not select."""
        if not self.selects:
            return 0.0
        return value if self.larger_is_better else -value
