"""The report of a model that compares sentences: cosines against scores, and the pairs that are furthest off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from orchard.data.labelled_text.contracts import LabelledTexts
from orchard.report.charts import scatter_chart, short
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.sentence_similarity.objective import Scale
from orchard.training.run import RunFolder

MOST_POINTS, MOST_PAIRS = 400, 16


def write_similarity_report(
    run: RunFolder, split: LabelledTexts, scale: Scale, found: list[tuple[Tensor, Tensor]], name: str
) -> Path:
    """Write report.html about a run whose other files are written, and return its path."""
    figures = run.metrics().reported
    cosines, scores = (torch.cat(column).numpy() for column in zip(*found, strict=True))
    wanted = scale.cosine(torch.from_numpy(scores)).numpy()
    shown = np.unique(np.linspace(0, len(scores) - 1, min(len(scores), MOST_POINTS)).round().astype(int))
    points = list(zip(wanted[shown].tolist(), cosines[shown].tolist(), strict=True))
    worst = np.argsort(-np.abs(cosines - wanted))[:MOST_PAIRS].tolist()
    pairs = [
        {"first": split.text(n)[0], "second": split.text(n)[1], "score": float(scores[n]), "cosine": float(cosines[n]),
         "key": split.key(n)}
        for n in worst
    ]  # fmt: skip
    tiles = [
        Tile(f"{name.capitalize()} Spearman", short(figures["spearman"]), "correlation of ranks, cosines and scores"),
        Tile("Pearson", short(figures["pearson"]), "correlation"),
        Tile("Pairs", f"{run.facts().data.model_dump()['counts']['train']:,}", "to learn from"),
    ]
    return write_run_page(
        run, Path(__file__).with_name("report.html.jinja"), tiles=tiles,
        curves=[Curve("Spearman", "spearman", "correlation"), Curve("Loss", "loss", "squared error", falling=True)],
        more_facts={"scores": f"{scale.low:g} to {scale.high:g}"}, report_split=name, pairs=pairs, figures=figures,
        chart=scatter_chart("Cosine and score", points, x_label="score", y_label="cosine"),
    )  # fmt: skip
