"""The report of a generative model: its images beside real ones, how they became so, and whether all kinds occur."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from orchard.report.charts import percent, short
from orchard.report.pictures import data_uri
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.unconditional_image_generation.codes import CLUSTERS
from orchard.tasks.unconditional_image_generation.diversity import falls
from orchard.tasks.unconditional_image_generation.judge import ACCURACY
from orchard.tasks.unconditional_image_generation.sample import SCORE
from orchard.training.run import RunFolder, read_log

SHOWN = 40  # images of each kind
NEAREST = 16  # generated images that are shown beside the nearest training image
MOST_DOTS = 300  # of each kind in the map of features
CLASSES, OF_EACH = 20, 10  # classes of which images are shown, and how many of each
WIDTH, HEIGHT, MARGIN = 640, 360, 10  # of that map

QUALITY = (
    Curve("Fréchet distance", "fid", "of features, less is better", falling=True),
    Curve("Kernel distance", "kid", "of features, less is better", falling=True),
    Curve("Coverage", "coverage", "share of real images with a generated one near", percent=True),
    Curve("Precision", "precision", "share of generated images near a real one", percent=True),
    Curve("Spread", "spread", "variance of features, over that of real images"),
    Curve("Inception score", "inception_score", "of the judge's classes, more is better"),
    Curve("Conditional accuracy", ACCURACY, "share that the judge takes for the class asked for", percent=True),
)


def write_generation_report(
    run: RunFolder, *, seen: Mapping[str, Tensor], curves: Sequence[Curve], classes: Sequence[str] = ()
) -> Path:
    """Write report.html about a run whose other files are written, and return its path.

    Args:
        run: the run's folder, with its metrics.
        seen: `real` and `generated` (N, C, H, W) uint8; `nearest`, the training images nearest to the first of the
            latter; the features `real_features` and `generated_features` (M, D); `history` (K, n, C, H, W) uint8 of the
            moments `steps` (K,); where there are classes, `by_class` (K, n, C, H, W) uint8 of the first of them; and
            of each code in the noise `code TITLE` (V, n, C, H, W) uint8, a row for each of its values.
        curves: those of the objective.
        classes: the names of all classes.
    """
    metrics = run.metrics()
    split, found, more = metrics.report_split, metrics.reported, metrics.table()
    best, judge = more["training_images"], more["judge"]
    count = int(found.get("samples", len(seen["real_features"])))  # runs of before kept them all
    few = count <= seen["real_features"].shape[1]
    log = read_log(run / "log.csv")
    validations = [row for row in log if row["split"] == "validation" and row["coverage"]]
    tiles = [
        Tile("Fréchet distance", short(found["fid"]), f"of {count:,} images; {short(best['fid'])} for real ones"),
        Tile("Kernel distance", f"{found['kid']:.3g}", f"{best['kid']:.2g} for real ones"),
        Tile("Coverage", percent(found["coverage"]), "real images with a generated one near"),
        Tile("Precision", percent(found["precision"]), "generated images near a real one"),
        Tile("Spread", f"{found['spread']:.2f}", "variance of the features, real images: 1"),
    ]
    if SCORE[0] in found:
        score, deviation = (found[name] for name in SCORE)
        tiles.append(Tile("Inception score", f"{score:.2f}", f"± {deviation:.2f} over parts of {count:,} images"))
    if ACCURACY in found:
        tiles.append(Tile("Conditional accuracy", percent(found[ACCURACY]), "of the class asked for, says the judge"))
    if CLUSTERS in found:
        tiles.append(Tile("Cluster accuracy", percent(found[CLUSTERS]), "real images whose category is their class's"))
    quality = [curve for curve in QUALITY if curve.column in found]
    shown = seen.get("by_class", torch.empty(0))
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=[*quality, *curves],
        more_facts={"judge": judge, "judged samples": f"{count:,}"},
        samples=count,
        compared=len(seen["real_features"]),
        dimensions=seen["real_features"].shape[1] if few else 0,
        report_split=split,
        found=found,
        judge=judge,
        real=_uris(seen["real"]),
        generated=_uris(seen["generated"]),
        nearest=list(zip(_uris(seen["generated"]), _uris(seen["nearest"]), strict=False)),
        warnings=falls([(int(row["step"]), float(row["coverage"])) for row in validations]),
        moments=[
            (step, _uris(images)) for step, images in zip(seen["steps"].tolist(), seen["history"], strict=True) if step
        ],
        classes=[(name, _uris(images)) for name, images in zip(classes, shown, strict=False)],
        number_of_classes=len(classes),
        codes=[
            (name.removeprefix("code "), [_uris(row) for row in rows])
            for name, rows in seen.items()
            if name.startswith("code ")
        ],
        dots=_map(seen["real_features"], seen["generated_features"]),
        box=(WIDTH, HEIGHT),
    )


def _uris(images: Tensor) -> list[str]:
    return [data_uri(to_pil_image(image)) for image in images]


def _map(real: Tensor, generated: Tensor) -> list[dict[str, Any]]:
    """Both kinds in the plane in which the real images differ most: places in a box of WIDTH by HEIGHT."""
    mean = real.mean(0)
    directions = torch.linalg.svd(real - mean, full_matrices=False).Vh[:2]
    places = {
        "real": (real[:MOST_DOTS] - mean) @ directions.T,
        "generated": (generated[:MOST_DOTS] - mean) @ directions.T,
    }
    everything = torch.cat(list(places.values()))
    low, high = everything.min(0).values, everything.max(0).values
    size = torch.tensor([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    return [
        {"kind": kind, "x": round(x + MARGIN, 1), "y": round(HEIGHT - MARGIN - y, 1)}
        for kind, points in places.items()
        for x, y in ((points - low) / (high - low).clamp_min(1e-9) * size).tolist()
    ]
