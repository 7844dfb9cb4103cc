"""The report of an agent: returns, a film of an episode, and what it thought its actions were worth."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from orchard.data.open_environment import EnvironmentData
from orchard.errors import UsageError
from orchard.report.charts import Chart, Line, line_chart, short
from orchard.report.pictures import data_uri
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.reinforcement_learning.families import family_of
from orchard.tasks.reinforcement_learning.film import Film, film
from orchard.training.run import RunFolder

STILLS = 8


def write_report(
    run: RunFolder,
    *,
    data: EnvironmentData,
    played: Mapping[str, Tensor],
    network: nn.Module,
    seed: int,
    sampled: bool,
) -> Path:
    """Write report.html about a run whose other files are written, and return its path.

    `played` has `score` and `length` (N,) of the last evaluation's episodes; the film is of the first of them, played
    again by `network` with `seed`.
    """
    how = "drawn from the policy" if sampled else "greedy"
    metrics = run.metrics()
    report_split, figures = metrics.report_split, metrics.reported
    scores = played["score"].numpy()
    solved = f"; counts as solved from {data.solved_at:g} on" if data.solved_at is not None else ""
    tiles = [
        Tile(f"{report_split.capitalize()} mean return", short(figures["mean_return"]),
             f"{len(scores)} episodes, {how}{solved}"),
        Tile("Standard deviation", short(figures["return_std"]), "of the returns of single episodes"),
        Tile("Lowest and highest", f"{short(scores.min())} to {short(scores.max())}", "return of an episode"),
        Tile("Mean length", short(figures["mean_length"]), "steps of an episode"),
    ]  # fmt: skip
    watched, why = _watch(network, data.source, seed, sampled)
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=[
            Curve(f"Return, {how}", "mean_return", "mean of an evaluation"),
            Curve("Return while exploring", "training_return", "mean of the last 100 episodes"),
            Curve("Loss", "loss", "what is learned from"),
            *(Curve(*curve) for curve in family_of(network).CURVES),
        ],
        more_facts={
            "observation": " × ".join(map(str, data.observation)),
            "actions": ", ".join(data.action_names),
        },
        report_split=report_split,
        how=how,
        mean_return=figures["mean_return"],
        count=len(scores),
        distribution=_distribution(scores),
        why=why,
        **_shown(watched, data),
    )


def _watch(network: nn.Module, source: str, seed: int, sampled: bool) -> tuple[Film | None, str]:
    """A film, or why there is none."""
    try:
        return film(network, source, seed, sampled=sampled), ""
    except UsageError as error:
        return None, str(error)


def _shown(watched: Film | None, data: EnvironmentData) -> dict[str, Any]:
    if watched is None:
        return {"gif": "", "stills": [], "values": None, "length": "", "cut": False}
    gif = "data:image/gif;base64," + base64.b64encode(watched.gif()).decode()
    times = np.arange(len(watched.pictures)) * watched.seconds
    lines = [
        Line(name, list(zip(times.tolist(), values.tolist(), strict=True)), "train" if n == 0 else "validation")
        for n, (name, values) in enumerate(watched.worth.items())
    ]
    chart: Chart | None = line_chart("What it thinks it is worth", lines, x_label="seconds", y_label="value")
    stills = [data_uri(picture) for picture in watched.strip(STILLS)]
    return {"gif": gif, "stills": stills, "values": chart, "length": f"{times[-1]:.0f} s", "cut": not watched.episode}


def _distribution(scores: np.ndarray) -> Chart | None:
    """The returns of all episodes, from the lowest to the highest."""
    points = [(float(n), float(score)) for n, score in enumerate(np.sort(scores), 1)]
    return line_chart(
        "Returns of single episodes", [Line("return", points, "train", dots=True)], x_label="episodes, lowest first",
        y_label="return",
    )  # fmt: skip
