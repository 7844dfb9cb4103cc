"""The report of a painter: what it paints for captions it has not learned from, beside the true pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchard.data.captions import CaptionSplit
from orchard.report.charts import short
from orchard.report.pictures import data_uri, record_uri
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.text_to_image.pipeline import TextToImagePipeline
from orchard.training.run import RunFolder
from orchard.weights.folders import read_description

PROMPTS, EACH = 8, 3  # captions that are painted, and pictures for each
SEED = 0


@dataclass(frozen=True)
class Row:
    """One caption, what was painted for it, and its picture, all as data URIs."""

    text: str
    key: str
    painted: list[str]
    truth: str


def write_painter_report(run: RunFolder, split: CaptionSplit, facts: Mapping[str, str]) -> Path:
    """Write report.html of a run whose model and other files are written, and return its path.

    `split` is the one of the final figures; `facts` stand beside what is known of all data.
    """
    metrics = run.metrics()
    report_split, figures = metrics.report_split, metrics.reported
    before = math.log2(read_description(run / "model").architecture["codes"])
    tiles = [
        Tile(
            f"{report_split.capitalize()} bits per code", f"{figures['bits_per_code']:.3f}", f"{before:.1f} by guessing"
        ),
        Tile("Perplexity", short(figures["perplexity"]), "codes among which a guess would do as well"),
        Tile("Loss", short(figures["loss"]), "nats"),
    ]
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=[
            Curve("Bits per code", "bits_per_code", "bits", falling=True),
            Curve("Loss", "loss", "nats", falling=True),
        ],
        more_facts=facts,
        report_split=report_split,
        rows=_paint(TextToImagePipeline(run / "model", precision="fp32"), split),
        per_prompt=EACH,
        seed=SEED,
    )


def _paint(pipeline: TextToImagePipeline, split: CaptionSplit) -> list[Row]:
    """Captions from all over the split, each only once."""
    texts: dict[str, int] = {}
    for index in np.unique(np.linspace(0, len(split) - 1, min(4 * PROMPTS, len(split))).astype(int)):
        texts.setdefault(split.text(int(index)), int(index))
    chosen = dict(list(texts.items())[:: max(1, len(texts) // PROMPTS)][:PROMPTS])
    painted = pipeline(list(chosen), count=EACH, seed=SEED)
    return [
        Row(text, split.key(index), [data_uri(picture) for picture in pictures], record_uri(split, index))
        for (text, index), pictures in zip(chosen.items(), painted, strict=True)
    ]
