"""How contestants learned: the metric of every evaluation, as a mean over the seeds with what is certain of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from orchard.report.charts import Band
from orchard.training.run import read_log

CONFIDENCE = 0.95


def seed_curves(rows: Sequence[Mapping[str, Any]], out: Path, metric: str) -> list[Band]:
    """A band for each contestant that did not fail, from the logs of its runs below `out`.

    It holds the evaluations that all its seeds have had.
    """
    return [
        band_of(row["model"], [read_evaluations(out / run["folder"] / "log.csv", metric) for run in row["runs"]])
        for row in rows
        if not row["error"]
    ]


def read_evaluations(log: Path, metric: str) -> dict[float, float]:
    """The metric on the validation split by the epoch it was measured at; nothing of a run whose log is gone."""
    if not log.exists():
        return {}
    lines = [line for line in read_log(log) if line["split"] == "validation" and line.get(metric)]
    return {float(line["epoch"]): float(line[metric]) for line in lines}


def band_of(label: str, seeds: Sequence[Mapping[float, float]]) -> Band:
    """The mean of the seeds with the 95 % confidence interval of that mean (Student's t); of one seed, its curve."""
    epochs = sorted(set(seeds[0]).intersection(*seeds))
    points = []
    for epoch in epochs:
        values = [seed[epoch] for seed in seeds]
        mean, half = statistics.mean(values), 0.0
        if len(values) > 1:
            quantile = float(student.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
            half = quantile * statistics.stdev(values) / math.sqrt(len(values))
        points.append((epoch, mean, mean - half, mean + half))
    return Band(label, points)
