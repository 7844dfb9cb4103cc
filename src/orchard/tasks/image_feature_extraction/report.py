"""The report of a model that learned without labels: its loss, k-NN accuracy, nearest images, and a map of features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from orchard.data.contracts import ImageSplit
from orchard.report.charts import percent, short
from orchard.report.pictures import record_uri
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.image_feature_extraction.features import SplitFeatures
from orchard.tasks.image_feature_extraction.settings import Settings
from orchard.training.run import RunFolder

ASKED, NEAREST = 10, 6  # images, and neighbours of each
MOST_DOTS = 500  # in the map
COLOURS = 8  # that the page has; more classes share them
WIDTH, HEIGHT, MARGIN = 640, 400, 10  # of the map


def look_at(known: SplitFeatures, asked: SplitFeatures) -> dict[str, Tensor]:
    """What the report shows of features: some images `asked` (A,) with the indices `neighbours` (A, n) and `cosines` of
    the nearest known ones, and the `places` (M, 2) and `labels` (M,) of images in a map.

    The map is t-SNE, of features by their directions; PCA where there are too few for it.
    """
    few = np.unique(np.linspace(0, len(asked.labels) - 1, min(ASKED, len(asked.labels))).round().astype(np.int64))
    search = NearestNeighbors(n_neighbors=min(NEAREST, len(known.labels)), metric="cosine").fit(known.features)
    distances, nearest = search.kneighbors(asked.features[few])
    shown = slice(None, None, -(-len(asked.labels) // MOST_DOTS))
    rows = asked.features[shown]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    if len(rows) >= 50:
        places = TSNE(init="pca", perplexity=min(30, len(rows) / 4), random_state=0).fit_transform(rows)
    else:
        places = PCA(min(2, *rows.shape)).fit_transform(rows) if len(rows) > 1 else np.zeros((len(rows), 2))
        places = np.pad(places, ((0, 0), (0, 2 - places.shape[1])))
    found = {
        "asked": asked.indices[few], "neighbours": known.indices[nearest], "cosines": 1 - distances,
        "places": places, "labels": asked.labels[shown],
    }  # fmt: skip
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in found.items()}


def write_feature_report(
    run: RunFolder,
    *,
    seen: Mapping[str, Tensor],
    known: ImageSplit,
    asked: ImageSplit,
    classes: Sequence[str],
    settings: Settings,
) -> Path:
    """Write report.html about a run whose other files are written, and return its path.

    Args:
        run: the run's folder, with its metrics.
        seen: what `look_at` gave.
        known: the split in which neighbours were looked for.
        asked: the split that the report is of.
        classes: none where the images have no labels.
        settings: those of the run.
    """
    metrics = run.metrics()
    figures = metrics.reported
    tiles = [
        Tile("Contrastive loss", short(figures["contrastive_loss"]), "nats per view, in batches of other images"),
        Tile("Views found", percent(figures["view_accuracy"]), "nearest to the other view of the same image"),
    ]
    if classes:
        k = settings.evaluation.k
        tiles = [
            Tile("k-NN accuracy", percent(figures["knn_accuracy"]), f"{k} nearest training images vote"),
            Tile("Linear accuracy", percent(figures["linear_accuracy"]), "logistic regression on the features"),
            *tiles,
        ]
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=[
            Curve("Loss", "loss", "nats", falling=True),
            Curve("Contrastive loss", "contrastive_loss", "nats per view", falling=True),
            Curve("Views found", "view_accuracy", "share of views", percent=True),
            Curve("k-NN accuracy", "knn_accuracy", "share correct", percent=True),
        ],
        more_facts={"classes": len(classes) or "none"},
        report_split=metrics.report_split,
        figures=figures,
        labelled=bool(classes),
        searches=_searches(seen, known, asked, classes),
        dots=_dots(seen, classes),
        legend=_legend(seen["labels"].tolist(), classes),
        box=(WIDTH, HEIGHT),
    )


def _searches(
    seen: Mapping[str, Tensor], known: ImageSplit, asked: ImageSplit, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Images and their nearest known ones, as pictures."""

    def shown(split: ImageSplit, index: int) -> dict[str, Any]:
        label = classes[split.labels[index]] if classes else ""
        return {"key": split.key(index), "picture": record_uri(split, index), "label": label}

    return [
        {
            **shown(asked, index),
            "answers": [
                shown(known, other) | {"cosine": cosine} for other, cosine in zip(others, cosines, strict=True)
            ],
        }
        for index, others, cosines in zip(
            seen["asked"].tolist(), seen["neighbours"].tolist(), seen["cosines"].tolist(), strict=True
        )
    ]


def _dots(seen: Mapping[str, Tensor], classes: Sequence[str]) -> list[dict[str, Any]]:
    """The map in a box of WIDTH by HEIGHT."""
    places = seen["places"].double()
    low, high = places.min(0).values, places.max(0).values
    size = torch.tensor([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    inside = ((places - low) / (high - low).clamp_min(1e-9) * size + MARGIN).tolist()
    return [
        {"x": round(x, 1), "y": round(y, 1), "colour": label % COLOURS, "hollow": label // COLOURS % 2 == 1,
         "says": classes[label] if classes else ""}
        for (x, y), label in zip(inside, seen["labels"].tolist(), strict=True)
    ]  # fmt: skip


def _legend(labels: Sequence[int], classes: Sequence[str]) -> list[dict[str, Any]]:
    """The classes that are most frequent in the map, as many as have a look of their own."""
    frequent = sorted(label for label, _ in Counter(labels).most_common(2 * COLOURS)) if classes else []
    return [{"name": classes[n], "colour": n % COLOURS, "hollow": n // COLOURS % 2 == 1} for n in frequent]
