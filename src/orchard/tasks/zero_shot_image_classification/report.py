"""The report of a model of pictures and sentences: what it finds for a text, and what it says of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orchard.data.captions import CaptionSplit
from orchard.report.charts import percent, short
from orchard.report.pictures import record_uri
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.zero_shot_image_classification.objective import Features
from orchard.training.run import RunFolder

ASKED = 8  # texts and pictures that are asked for
FOUND = 5  # answers shown of each
PAIRS = 12  # of the matrix
SIDE = 40  # of its cells in pixels
LABEL = 26  # characters of a text beside the matrix


@dataclass(frozen=True)
class Answer:
    """One of the best answers: a picture (data URI and name) or a text."""

    says: str
    cosine: float
    right: bool
    picture: str = ""


@dataclass(frozen=True)
class Query:
    """What was asked, the rank of its best right answer among `of`, and the best answers."""

    says: str
    rank: int
    of: int
    answers: list[Answer]
    picture: str = ""


def write_image_text_report(run: RunFolder, *, split: CaptionSplit, features: Features) -> Path:
    """Write report.html about a run whose other files are written, and return its path.

    `features` are those of `split`: of every picture with each of its captions, in the split's order.
    """
    metrics = run.metrics()
    report_split, figures = metrics.report_split, metrics.reported
    sides = _Sides(split, features)
    tiles = [
        Tile(
            f"{report_split.capitalize()} reciprocal rank", short(figures["mean_reciprocal_rank"]),
            "mean over both ways; 1 is always first, 0.5 second",
        ),
        Tile("Text found first", percent(figures["image_to_text_recall_at_1"]), f"of {len(sides.texts):,} texts"),
        Tile("Picture found first", percent(figures["text_to_image_recall_at_1"]), f"of {len(sides.shown):,} pictures"),
        Tile("Picture among five", percent(figures["text_to_image_recall_at_5"]), "for a text"),
        Tile("Loss", short(figures["loss"]), "nats, among all of the split"),
    ]  # fmt: skip
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=[
            Curve("Loss (training: in a batch, validation: among all)", "loss", "nats", falling=True),
            Curve("Reciprocal rank", "mean_reciprocal_rank", "mean"),
            Curve("Found in the batch", "accuracy", "share first", percent=True),
            Curve("Text of a picture found first", "image_to_text_recall_at_1", "share", percent=True),
            Curve("Picture of a text found first", "text_to_image_recall_at_1", "share", percent=True),
        ],
        more_facts={f"{report_split} texts": f"{len(sides.texts):,} different ones"},
        report_split=report_split,
        texts=len(sides.texts),
        pictures=len(sides.shown),
        figures=figures,
        searches=sides.searches(),
        captions=sides.captions(),
        matrix=sides.matrix(),
    )


class _Sides:
    """The different pictures and the different texts of a split, and how close each is to each."""

    def __init__(self, split: CaptionSplit, features: Features):
        self.split = split
        _, shown, of_picture = _distinct(features.picture_keys)
        _, told, of_text = _distinct(features.text_keys)
        said = [text for index in range(len(split)) for text in split.texts(index)]
        self.texts = [said[row] for row in told]
        self.shown = features.indices[shown].tolist()  # the record of each different picture
        self.pictures, self.sentences = features.images[shown], features.texts[told]
        self.right = torch.zeros(len(shown), len(told), dtype=torch.bool)
        self.right[of_picture, of_text] = True

    def searches(self) -> list[Query]:
        """Some texts and the pictures that are closest to them."""
        found = []
        for number in _spread(len(self.texts), ASKED):
            cosines, right = self.pictures @ self.sentences[number], self.right[:, number]
            answers = []
            for n in _best(cosines, right):
                record = self.shown[n]
                uri = record_uri(self.split, record)
                answers.append(Answer(self.split.key(record), float(cosines[n]), bool(right[n]), uri))
            found.append(Query(self.texts[number], _rank(cosines, right), len(cosines), answers))
        return found

    def captions(self) -> list[Query]:
        """Some pictures and the texts that are closest to them."""
        found = []
        for number in _spread(len(self.shown), ASKED):
            cosines, right = self.sentences @ self.pictures[number], self.right[number]
            answers = [Answer(self.texts[n], float(cosines[n]), bool(right[n])) for n in _best(cosines, right)]
            key, uri = self.split.key(self.shown[number]), record_uri(self.split, self.shown[number])
            found.append(Query(key, _rank(cosines, right), len(cosines), answers, uri))
        return found

    def matrix(self) -> dict[str, Any]:
        """Cosines of a few pairs, each text with a picture of its own, as cells in pixels.

        The lowest cosine is blank, the highest full.
        """
        chosen: dict[int, int] = {}  # text: picture
        for text in _spread(len(self.texts), len(self.texts)):
            free = (n for n in self.right[:, text].nonzero().flatten().tolist() if n not in chosen.values())
            picture = next(free, None)
            if picture is not None:
                chosen[text] = picture
            if len(chosen) == PAIRS:
                break
        texts, pictures = list(chosen), list(chosen.values())
        cosines = self.pictures[pictures] @ self.sentences[texts].T
        low, high = float(cosines.min()), float(cosines.max())
        cells = [
            {
                "x": column * SIDE, "y": row * SIDE, "right": bool(self.right[pictures[row], texts[column]]),
                "strength": round((float(cosine) - low) / max(high - low, 1e-6), 3),
                "says": f"{self.split.key(self.shown[pictures[row]])} and “{self.texts[texts[column]]}”: "
                        f"{float(cosine):.3f}",
            }
            for row, line in enumerate(cosines) for column, cosine in enumerate(line)
        ]  # fmt: skip
        names = [text if len(text) <= LABEL else text[: LABEL - 1] + "…" for text in (self.texts[n] for n in texts)]
        uris = [record_uri(self.split, self.shown[n]) for n in pictures]
        foot = 24 + max(map(len, names)) * 5
        return {"cells": cells, "names": names, "pictures": uris, "side": SIDE, "low": low, "high": high, "foot": foot}


def _distinct(keys: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The different keys, the first row of each, and for each row the place of its key."""
    return np.unique(keys.numpy(), return_index=True, return_inverse=True)


def _best(cosines: Tensor, right: Tensor) -> list[int]:
    """The places of the best answers, and of the best right one where it is not among them."""
    best: list[int] = cosines.topk(min(FOUND, len(cosines))).indices.tolist()
    return best if right[best].any() else [*best, int(cosines.masked_fill(~right, -2).argmax())]


def _rank(cosines: Tensor, right: Tensor) -> int:
    return 1 + int((cosines > cosines[right].max()).sum())


def _spread(count: int, wanted: int) -> list[int]:
    """Up to `wanted` numbers from 0 to count - 1, as far apart as they can be."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int)).tolist()
