"""A comparison of landmarks as one page: a table by year, and accuracy against multiply-adds as a picture.

orchard compare MODEL ... --data fashion-mnist --epochs 0.2 --seeds 3 --out FOLDER
python benchmarks/history.py FOLDER [--out docs/history.md]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from orchard.app.compare import Budget
from orchard.cards import card_of
from orchard.report.charts import short


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Dots coloured by the year of the paper; bars are one standard deviation over the seeds."""
    figure, axes = plt.subplots(figsize=(9, 5.6), layout="constrained")
    x, y = [row["macs"] for row in rows], [100 * row["accuracy"] for row in rows]
    years = [row["year"] for row in rows]
    axes.errorbar(x, y, yerr=[100 * (row["std"] or 0) for row in rows], fmt="none", ecolor="0.75", zorder=1)
    dots = axes.scatter(x, y, c=years, cmap="viridis_r", s=36, zorder=2)
    for row in rows:
        axes.annotate(
            row["model"], (row["macs"], 100 * row["accuracy"]), xytext=(4, 3), textcoords="offset points", fontsize=6
        )
    axes.set(xscale="log", xlabel="multiply-adds of one image", ylabel="test accuracy in %")
    axes.grid(alpha=0.3)
    figure.colorbar(dots, label="year of the paper")
    figure.savefig(path, dpi=120)


def page(result: dict[str, Any], rows: list[dict[str, Any]], picture: str) -> str:
    budget = Budget(**result["budget"])
    seeds = result["seeds"]
    words = " ".join(row["model"] for row in rows)
    settings = "".join(f" --set {key}={value}" for key, value in result["settings"].items() if key != "data.root")
    hardware = result["hardware"]
    lines = [
        f"# The landmarks on {result['name']}, under one budget",
        "",
        f"Every landmark's small variant, {budget.words()} each, {seeds} seeds, its card's recipe otherwise. "
        "Accuracy is that on the test split, mean and standard deviation over the seeds. "
        f"{hardware['cpu']}, threads: {hardware['threads']}. With a budget so short the table says which of them learn "
        "fast, not which would win in the end; schedules meant for many epochs "
        "cost most here, and a deep belief net, whose layers are pretrained one by one, does not come to the labels.",
        "",
        f"![accuracy against multiply-adds]({picture})",
        "",
        "| year | landmark | model | accuracy | parameters | multiply-adds |",
        "| ---: | --- | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        accuracy = f"{100 * row['accuracy']:.1f}" + (f" ± {100 * row['std']:.1f}" if row["std"] is not None else "")
        lines.append(
            f"| {row['year']} | {row['label']} | {row['model']} | {accuracy} % | {short(row['parameters'])} "
            f"| {short(row['macs'])} |"
        )
    lines += [
        "",
        "```",
        f"orchard compare {words} \\",
        f"    --data {result['data']} --{budget.kind} {budget.amount:g} --seeds {seeds}{settings} --out FOLDER",
        "python benchmarks/history.py FOLDER",
        "```",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/history.md"))
    options = parser.parse_args()
    result = json.loads((options.folder / "compare.json").read_text())
    rows = [row for row in result["contestants"] if not row["error"]]
    for row in rows:
        card = card_of(row["model"])
        row |= {"year": card.year, "label": card.label}
    rows.sort(key=lambda row: (row["year"], row["label"], row["model"]))
    picture = options.out.with_suffix(".png")
    draw(rows, picture)
    options.out.write_text(page(result, rows, picture.name))


if __name__ == "__main__":
    main()
