"""The lines of a run's log."""

from __future__ import annotations

import csv
from pathlib import Path


def log_lines(run: Path) -> list[dict[str, str]]:
    """All but the seconds, which differ from run to run."""
    with (run / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
