"""Whether generated images become alike while a model learns, as a collapsing generator's do."""

from __future__ import annotations

from collections.abc import Sequence

LEAST = 0.1  # coverage from which a fall is looked for: below it a model has not learned much yet
SHARE = 0.5  # of the best coverage so far, below which it has fallen


def falls(evaluations: Sequence[tuple[int, float]]) -> list[str]:
    """A line for every fall of the coverage, given (step, coverage) of all evaluations in their order.

    Coverage is the share of real images with a generated one near: images of few kinds cover few, however good they
    are. A fall is said once, and again only after a recovery.
    """
    lines, best, fallen = [], (0, 0.0), False
    for step, coverage in evaluations:
        now = best[1] >= LEAST and coverage < SHARE * best[1]
        if now and not fallen:
            lines.append(
                f"the diversity of generated images falls: they cover {coverage:.1%} of real ones at step {step:,}, "
                f"and covered {best[1]:.1%} at step {best[0]:,}; the generator may be collapsing. The best weights are "
                "kept; try a smaller --set optimizer.lr, or another --set objective"
            )
        fallen = now
        best = max(best, (step, coverage), key=lambda one: one[1])
    return lines
