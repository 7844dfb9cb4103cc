"""A validation metric of several runs over their epochs, as one picture.

python benchmarks/curves.py RUN [RUN ...] [--metric mean_return] --out curves.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt

from orchard.training.run import RunFolder, read_log


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--metric", default="accuracy")
    parser.add_argument("--out", type=Path, default=Path("curves.png"))
    options = parser.parse_args()
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for run in options.runs:
        rows = [row for row in read_log(run / "log.csv") if row["split"] == "validation"]
        metrics = RunFolder(run).metrics()
        tested = metrics.reported[options.metric]
        label = f"{run.name}, {metrics.report_split} {tested:.3g}"
        if options.metric == "accuracy":
            label = f"{metrics.model}, {metrics.report_split} {tested:.1%}"
        axes.plot([float(r["epoch"]) for r in rows], [float(r[options.metric]) for r in rows], marker="o", label=label)
    axes.set(xlabel="epoch", ylabel=f"validation {options.metric.replace('_', ' ')}", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(options.out, dpi=120)


if __name__ == "__main__":
    main()
