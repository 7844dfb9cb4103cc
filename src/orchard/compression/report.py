"""The page of a compression: the table of before and after, the stages, the settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchard.report.charts import bytes_text, percent, seconds_text, short, write_page
from orchard.training.run import RunFolder


def rows(table: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """The table as people read it: what, before, after, and how they compare."""
    before, after, split = table["before"], table["after"], table["split"]
    metric = table["metric"]

    def times(key: str, words: str) -> str:
        return f"{before[key] / after[key]:.3g} times {words}" if after[key] else ""

    found = [
        ("file", bytes_text(before["file_bytes"]), bytes_text(after["file_bytes"]), times("file_bytes", "smaller")),
        ("memory", bytes_text(before["memory_bytes"]), bytes_text(after["memory_bytes"]),
         times("memory_bytes", "smaller")),
        ("parameters", short(before["parameters"]), short(after["parameters"]), times("parameters", "fewer")),
        ("multiply-adds", short(before["macs"]), short(after["macs"]), times("macs", "fewer")),
        ("latency of one sample", seconds_text(before["latency_s"]), seconds_text(after["latency_s"]),
         times("latency_s", "faster")),
    ]  # fmt: skip
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
