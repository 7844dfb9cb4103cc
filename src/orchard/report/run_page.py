"""report.html: one run to look at, in one file that needs nothing else and asks nothing of the network.

Here is what every report has; a task adds tiles, curves and sections of its own in a template that extends
`run.html.jinja`.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchard.given import DATA, MODULE, given_name
from orchard.report.charts import Chart, Line, line_chart, short, write_page
from orchard.training.run import RunFolder, read_log
from orchard.training.run_files import RunMetrics, Setting


@dataclass(frozen=True)
class Tile:
    """A figure at the top; the first of a report is the large one."""

    name: str
    figure: str
    note: str


@dataclass(frozen=True)
class Curve:
    """A column of log.csv over the epochs, training and validation."""

    title: str
    column: str
    unit: str
    falling: bool = False
    percent: bool = False


def write_run_page(
    run: RunFolder,
    template: Path,
    *,
    tiles: Sequence[Tile],
    curves: Sequence[Curve],
    more_facts: Mapping[str, Any],
    **content: Any,
) -> Path:
    """Write report.html of a run whose other files are written, and return its path.

    `more_facts` stand beside what is known of all data; `content` is what the template's own sections need.
    """
    metrics, facts, settings = run.metrics(), run.facts().model_dump(), run.settings().rows()
    rows = {key: (_plain(row.value), row.origin) for key, row in settings.items()}
    ending = "_per_second"
    rates = [f"{short(v)} {k.removesuffix(ending)}/s" for k, v in metrics.table().items() if k.endswith(ending)]
    return write_page(
        run / "report.html",
        template,
        metrics=metrics,
        facts=facts,
        more_facts=more_facts,
        tiles=tiles,
        throughput=", ".join(rates),
        charts=_charts(read_log(run / "log.csv"), metrics, curves),
        changed={key: row for key, row in rows.items() if row[1] != "default"},
        defaults={key: row for key, row in rows.items() if row[1] == "default"},
        command=_command(facts, settings),
        **content,
    )


def _charts(log: Sequence[Mapping[str, str]], metrics: RunMetrics, curves: Sequence[Curve]) -> list[Chart]:
    """The task's curves, learning rate and gradient norm over the epochs; a column nobody wrote gives none.

    A task that has several gradient norms names them all, the first phase's among its curves too.
    """

    def points(split: str, column: str) -> list[tuple[float, float]]:
        rows = (row for row in log if row["split"] == split and row.get(column))
        found = [(float(row["epoch"]), float(row[column])) for row in rows]
        return [point for point in found if math.isfinite(point[1])]

    best = [float(row["epoch"]) for row in log
            if row["split"] == "validation" and int(row["step"]) == metrics.best_step]  # fmt: skip
    mark = (best[0], _best(best[0], metrics.best_step)) if best else None
    charts = []
    for curve in curves:
        lines = [
            Line("training", points("train", curve.column), "train"),
            Line("validation", points("validation", curve.column), "validation", dots=True),
        ]
        charts.append(
            line_chart(
                curve.title, lines, x_label="epoch", y_label=curve.unit,
                falling=curve.falling, percent=curve.percent, mark=mark,
            )
        )  # fmt: skip
    rate, norm = (Line(label, points("train", column), "train") for label, column in
                  (("learning rate", "lr"), ("norm", "grad_norm")))  # fmt: skip
    charts.append(line_chart("Learning rate", [rate], x_label="epoch", y_label="rate"))
    if all(curve.column != "grad_norm" for curve in curves):
        charts.append(line_chart("Gradient norm", [norm], x_label="epoch", y_label="before clipping", falling=True))
    return [chart for chart in charts if chart]


def _best(epoch: float, step: int) -> str:
    """When the weights were best: after a whole epoch, or between two, which are counted in steps."""
    return f"best epoch: {epoch:,.0f}" if epoch.is_integer() else f"best step: {step:,}"


def _plain(value: Any) -> str:
    """A setting as it is given on the command line."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _command(facts: Mapping[str, Any], settings: Mapping[str, Setting]) -> str:
    """The command that trains the same again."""
    model, data = given_name(str(facts["model"]), MODULE), given_name(str(facts["data"]["source"]), DATA)
    if model or data:
        return f"orchard.train({model or repr(facts['model'])}, {data or repr(facts['data']['source'])}, ...)"
    words = ["orchard", "train", str(facts["model"]), "--data", str(facts["data"]["source"])]
    if facts.get("recipe"):
        words += ["--recipe", str(facts["recipe"])]
    for key, row in settings.items():
        if row.origin == "command" and key not in ("model", "data.source"):
            words += ["--set", f"{key}={_plain(row.value)}"]
    return shlex.join(words)
