"""The page of a compression: the table of before and after, the stages, the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchard.report.charts import bytes_text, percent, seconds_text, short, write_page
from orchard.training.run import RunFolder


def rows(table: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """The table as people read it: what, before, after, and how they compare."""
    before, after, split = table["before"], table["after"], table["split"]
    metric = table["metric"]

    def row(name: str, key: str, text: Callable[[float], str], better: str, worse: str) -> tuple[str, str, str, str]:
        old, new = before[key], after[key]
        change = (
            f"{old / new:.3g} times {better}" if new < old else f"{new / old:.3g} times {worse}" if new > old else ""
        )
        return name, text(old), text(new), change

    found = [
        row("file of the weights", "file_bytes", bytes_text, "smaller", "larger"),
        row("memory of the weights", "memory_bytes", bytes_text, "smaller", "larger"),
        row("parameters", "parameters", short, "fewer", "more"),
        row("multiply-adds", "macs", short, "fewer", "more"),
        row("latency of one sample", "latency_s", seconds_text, "faster", "slower"),
    ]
    for name, value in before[split].items():
        now = after[split].get(name)
        if value is None or now is None or name == "majority_accuracy":
            continue
        shares = metric["percent"] and name == metric["name"]
        text = percent if shares else (lambda one: f"{one:.4g}")
        change = f"{(now - value) * 100:+.2f} points" if shares else f"{now - value:+.4g}"
        found.append((f"{split} {name.replace('_', ' ')}", text(value), text(now), change))
    return found


def write_report(run: RunFolder, table: Mapping[str, Any]) -> Path:
    """Write report.html of a compression whose other files are written, and return its path."""
    stages = table["stages"]
    columns = list(dict.fromkeys(key for row in stages for key in row))
    facts = run.facts().model_dump()
    return write_page(
        run / "report.html",
        Path(__file__).with_name("report.html.jinja"),
        table=table,
        rows=rows(table),
        columns=columns,
        stages=[[_cell(row.get(key)) for key in columns] for row in stages],
        settings=run.settings().rows(),
        facts=facts,
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
