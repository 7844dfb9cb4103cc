"""Prioritised replay: what surprised the most is drawn most often (Schaul et al. 2015, arXiv:1511.05952)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SMALLEST = 1e-6  # that no transition is never drawn


class Priorities:
    """A priority for every row of `environments` rings of `rows` rows; 0 for a row that is not to be drawn.

    A row is drawn with probability pᵅ / Σ pᵅ, where p is the size of its last temporal difference (proportional
    prioritisation, equation 1). A new one has the largest priority so far.
    """

    def __init__(self, environments: int, rows: int, alpha: float):
        self.alpha = alpha
        self.raised = np.zeros((environments, rows))  # pᵅ
        self.largest = 1.0

    def write(self, at: tuple[np.ndarray, np.ndarray], drawable: bool) -> None:
        """Rows that have just been written."""
        self.raised[at] = self.largest if drawable else 0.0

    def draw(
        self, chances: np.ndarray, excluded: tuple[np.ndarray, np.ndarray], beta: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows (B,), counted ring by ring, by uniform numbers (B,), and the weights (B,) that make up for drawing them
        more often than others: (N P)⁻ᵝ, the largest 1. The `excluded` rows are not drawn.

        The range of Σ pᵅ is cut into B equal parts, and a row is drawn from each (appendix B.2.1). Nothing is drawn
        where there is nothing.
        """
        raised = self.raised.copy()
        raised[excluded] = 0
        sums = raised.ravel().cumsum()
        if not len(sums) or sums[-1] <= 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        parts = (np.arange(len(chances)) + chances) / len(chances)
        found = np.searchsorted(sums, parts * sums[-1], side="right").clip(max=np.flatnonzero(raised.ravel())[-1])
        weights = raised.ravel()[found] ** -beta  # the number of rows and the sum are the same for all
        return found, (weights / weights.max()).astype(np.float32)

    def update(self, rows: np.ndarray, errors: np.ndarray) -> None:
        """The temporal differences (B,) of rows (B,) that were learned from."""
        raised = (np.abs(errors) + SMALLEST) ** self.alpha
        self.raised.reshape(-1)[rows] = raised
        self.largest = max(self.largest, float(raised.max()))

    def state(self) -> dict[str, Tensor]:
        largest = torch.tensor(self.largest, dtype=torch.float64)
        return {"priorities": torch.from_numpy(self.raised), "largest_priority": largest}

    def load(self, state: dict[str, Tensor]) -> None:
        self.raised[:] = state["priorities"].numpy()
        self.largest = float(state["largest_priority"])
