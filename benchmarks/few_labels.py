"""Few labels: a classifier from scratch, against ones that begin with the trunk of runs that learned without labels.

    python benchmarks/few_labels.py --data fashion-mnist:FOLDER --from SIMCLR_RUN MOCO_RUN --seeds 0 1 2

For each seed, 1, 10 and 100 images of each class are chosen, on which resnet_nano learns for a fixed number of steps;
no checkpoint is chosen by validation labels. Printed is the test accuracy, mean and standard deviation over the seeds.
Give the settings of the data that the runs were trained with (`--set`), so that the same images are held out.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from orchard.app.train import train
from orchard.cli.output import parse_settings

SIZES = {1: (100, 10), 10: (200, 32), 100: (300, 64)}  # labels a class: steps, images in a batch
PROBE = {"freeze_trunk": True, "head_epochs": 0, "optimizer.lr": 1e-2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--from", nargs="+", default=[], dest="runs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/few-labels"))
    parser.add_argument("--set", nargs="+", default=[], dest="settings")
    chosen = parser.parse_args()
    common = {"evaluate_steps": 10**6, "epochs": 10**6, **parse_settings(chosen.settings)}
    ways: dict[str, dict[str, Any]] = {"from scratch": {"image_size": 28}}
    for run in chosen.runs:
        ways[f"linear probe on {Path(run).name}"] = {"start_from": run, **PROBE}
        ways[f"fine-tuned from {Path(run).name}"] = {"start_from": run, "head_epochs": 0}
    print("| resnet_nano | " + " | ".join(f"{count} a class" for count in SIZES) + " |")
    print("|---" * (len(SIZES) + 1) + "|")
    for way, settings in ways.items():
        cells = []
        for count, (steps, batch) in SIZES.items():
            sizes = {"data.labels_per_class": count, "max_steps": steps, "batch_size": batch}
            found = [
                train(
                    "resnet_nano", chosen.data, chosen.out / f"{way}, {count}, seed {seed}".replace(" ", "-"),
                    **{**common, **sizes, **settings, "seed": seed},
                )["test"]["accuracy"]
                for seed in chosen.seeds
            ]  # fmt: skip
            spread = f" ± {100 * statistics.stdev(found):.1f}" if len(found) > 1 else ""
            cells.append(f"{100 * statistics.mean(found):.1f}{spread}")
        print(f"| {way} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
