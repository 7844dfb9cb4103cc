"""What the reports of all classifiers have, whatever an image's label is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from orchard.data.contracts import ImageSplit, Preprocess
from orchard.report.charts import short
from orchard.report.pictures import look_inside
from orchard.report.run_page import Tile
from orchard.tasks.image_classification.image_objective import ImageObjective


def own_tiles(objective: ImageObjective, figures: Mapping[str, Any]) -> list[Tile]:
    """A tile for each metric of the person's own."""
    return [
        Tile(name.replace("_", " ").capitalize(), short(figures[name]), "a metric of your own")
        for name in objective.own_metrics
    ]


def insights(
    model: nn.Module, split: ImageSplit, preprocess: Preprocess, chosen: list[tuple[int, str, str]]
) -> dict[str, Any]:
    """What `insights.html.jinja` shows: what the model looks at in some images, (index, truth, prediction) each."""
    words, found = look_inside(model, split, preprocess, chosen)
    return {
        "insight_title": "Attention" if words.startswith("Attention") else "Feature maps",
        "insight_words": words,
        "insights": [replace(insight, key=split.key(int(insight.key))) for insight in found],
    }
