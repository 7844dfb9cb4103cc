"""An activation atlas: a data set as the model sees it, neighbours being what it takes for alike.

Carter et al. 2019 (doi:10.23915/distill.00015): activations are laid out in two dimensions and averaged in the cells of
a grid. A cell shows the image that is nearest to its average and, where the model is small enough to pay for it, an
image that is made for the average by feature visualisation. Activations are means over the last feature map, one for
each image.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image

from orchard.data.contracts import DataSettings, ImageSplit
from orchard.data.preprocess import fit
from orchard.data.sources import open_data
from orchard.errors import OrchardError, UsageError
from orchard.inference.cost import multiply_adds
from orchard.inference.loading import Loaded
from orchard.inference.png_files import png_bytes, save_picture
from orchard.report.charts import write_page
from orchard.tasks.base import on_device, pick_split
from orchard.tasks.image_classification.explain.features import STEPS, Objective, visualise
from orchard.tasks.image_classification.explain.page import with_bar

MOST, LEAST = 2000, 30  # images that are laid out; more are thinned out evenly
PER_CELL, MOST_SIDE = 3, 40  # images a cell if they lay evenly, cells along a side
WIDE, TILE = 1680, 56  # pixels of a side of the atlas, and of a full cell where there are many
GROUND = (16, 21, 19)  # the colour between cells
BATCH = 64
PAYS = 1e12  # multiply-adds that may be spent on making images for the cells
FILES = {"nearest images": "atlas.png", "feature visualisations": "atlas-features.png"}
LABELLED = 30  # classes whose names stand in the picture


@dataclass(frozen=True)
class Cell:
    """A cell of the grid: where it is, what it stands for."""

    x: int
    y: int
    count: int  # images in it
    label: str  # the class that is predicted for most of them
    share: float  # of them
    nearest: int  # the image nearest to the average, as its index in the split
    key: str  # what that image is called


def explain_data(loaded: Loaded, data: Any, out: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """atlas.png, atlas-features.png where that pays, and atlas.html, which zooms into them; of the test split."""
    model, _ = on_device(loaded.model)
    if not hasattr(model, "feature_maps"):
        raise UsageError(f"{loaded.name} has no feature maps to make an atlas of; a ResNet, VGG or ViT has")
    opened = open_data(data, DataSettings().for_evaluation(whole=True))
    source, split = opened.source, pick_split(opened.splits, "test", opened.source)
    if len(split) < LEAST:
        raise OrchardError(f"{source}: {len(split)} test images are too few for an atlas; expected {LEAST} or more")
    indices = np.unique(np.linspace(0, len(split) - 1, min(len(split), MOST)).round().astype(int))
    activations, predicted = read_activations(loaded, model, split, indices)
    say(f"laying out {len(indices):,} images by t-SNE")
    cells, means = make_cells(lay_out(activations), activations, predicted, loaded.classes, split, indices)
    nearest = [_fitted(loaded, split, cell.nearest) for cell in cells]
    views: dict[str, Image.Image] = {}

    def draw(view: str, pictures: Sequence[Image.Image]) -> Path:
        """The atlas of these pictures, and the page with all that there are by now: Ctrl-C keeps them."""
        views[view] = draw_atlas(cells, pictures, loaded.classes)
        save_picture(views[view], out / FILES[view])
        return _write_page(out, loaded, source, len(indices), cells, views)

    page = draw("nearest images", nearest)
    macs = multiply_adds(model, (1, loaded.pictures.channels, *loaded.pictures.size))
    if 3 * macs * STEPS * len(cells) <= PAYS:
        made: list[Image.Image] = []
        for start in range(0, len(cells), BATCH):
            part = means[start : start + BATCH]
            words = f"features of cells {min(start + BATCH, len(cells))} of {len(cells)}:"
            images, _ = visualise(model, loaded.pictures, of_directions(model, part), len(part), words=words)
            made += [to_pil_image(image) for image in images]
        draw("feature visualisations", made)
    else:
        say(f"no features are made for the cells: {loaded.name} is too large for {len(cells)} of them")
    rows = [{"unit": name, "file": str(out / FILES[name])} for name in views]
    return {"method": "atlas", "page": str(page), "images": len(indices), "cells": [asdict(cell) for cell in cells],
            "explanations": rows}  # fmt: skip


@torch.no_grad()
def read_activations(
    loaded: Loaded, model: Any, split: ImageSplit, indices: np.ndarray
) -> tuple[np.ndarray, list[int]]:
    """Means over the last feature map (N, C) float32, and the predicted classes."""
    activations, predicted = [], []
    starts = range(0, len(indices), BATCH)
    for start in with_bar(starts, "activations:", len(starts)):
        seen = [_fitted_array(loaded, split, int(i)) for i in indices[start : start + BATCH]]
        pixels = torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2)
        images = loaded.pictures.normalise(pixels.to(next(model.parameters()).device))
        activations.append(model.feature_maps(images)[-1].mean((2, 3)).float().cpu().numpy())
        predicted += model(images).argmax(1).tolist()
    return np.concatenate(activations), predicted


def lay_out(activations: np.ndarray) -> np.ndarray:
    """Places in the unit square, (N, 2): t-SNE of the first 50 principal components, by rank along both axes.

    Well separated classes are small islands in t-SNE's plane, and most of a grid over it would be empty. Ranks keep who
    stands left of and above whom.
    """
    components = PCA(min(50, *activations.shape), random_state=0).fit_transform(activations)
    perplexity = min(30.0, len(activations) / 4)
    places = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(components)
    return np.asarray(rankdata(places, axis=0) - 0.5) / len(places)


def make_cells(
    places: np.ndarray, activations: np.ndarray, predicted: Sequence[int], classes: Sequence[str], split: ImageSplit,
    indices: np.ndarray,
) -> tuple[list[Cell], Tensor]:  # fmt: skip
    """The cells of the grid that have images, row by row, and the mean activation of each, (cells, C)."""
    side = min(max(round((len(places) / PER_CELL) ** 0.5), 2), MOST_SIDE)
    columns = np.minimum((places * side).astype(int), side - 1)
    cells, means = [], []
    for y, x in sorted({(int(y), int(x)) for x, y in columns}):
        inside = np.flatnonzero((columns == (x, y)).all(1))
        mean = activations[inside].mean(0)
        nearest = int(indices[inside[np.linalg.norm(activations[inside] - mean, axis=1).argmin()]])
        ((label, most),) = Counter(predicted[int(i)] for i in inside).most_common(1)
        cells.append(Cell(x, y, len(inside), classes[label], most / len(inside), nearest, split.key(nearest)))
        means.append(mean)
    return cells, torch.from_numpy(np.stack(means))


def of_directions(model: Any, directions: Tensor) -> Objective:
    """How far the mean activation goes in a direction (B, C), times how exactly it goes there (Carter et al.)."""

    def objective(images: Tensor) -> Tensor:
        found, wanted = model.feature_maps(images)[-1].mean((2, 3)), directions.to(images.device)
        return (found * wanted).sum(1) * nn.functional.cosine_similarity(found, wanted).clamp_min(0.1) ** 2

    return objective


def _fitted_array(loaded: Loaded, split: ImageSplit, index: int) -> np.ndarray:
    with split.open(index) as picture:
        return fit(picture, loaded.pictures)


def _fitted(loaded: Loaded, split: ImageSplit, index: int) -> Image.Image:
    pixels = _fitted_array(loaded, split, index)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def colours_of(classes: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """A colour for each class, far from its neighbours' in the list."""
    names = list(classes)
    palette = colormaps["tab10"].colors if len(names) <= 10 else colormaps["hsv"](np.arange(len(names)) * 0.618 % 1)  # type: ignore[attr-defined]
    return {name: tuple(round(255 * v) for v in colour[:3]) for name, colour in zip(names, palette, strict=False)}  # type: ignore[misc]


def tile_of(cells: Sequence[Cell]) -> int:
    """Pixels of a full cell's side."""
    return max(TILE, WIDE // (1 + max(max(cell.x, cell.y) for cell in cells)))


def draw_atlas(cells: Sequence[Cell], pictures: Sequence[Image.Image], classes: Sequence[str]) -> Image.Image:
    """The atlas: a cell is the larger the more images are in it, and has a border in the colour of its class."""
    across, down = max(cell.x for cell in cells) + 1, max(cell.y for cell in cells) + 1
    tile = tile_of(cells)
    edge = max(tile // 20, 3)
    whole = Image.new("RGB", (across * tile, down * tile), GROUND)
    colours, most = colours_of(classes), max(cell.count for cell in cells)
    for cell, picture in zip(cells, pictures, strict=True):
        side = round((tile - 2) * (0.55 + 0.45 * (cell.count / most) ** 0.5))
        tint = Image.new("RGB", (side, side), colours[cell.label])
        inner = picture.convert("RGB").resize((side - 2 * edge, side - 2 * edge), Image.Resampling.BICUBIC)
        tint.paste(
            Image.blend(inner, Image.new("RGB", inner.size, colours[cell.label]), 0.25 * cell.share), (edge, edge)
        )
        whole.paste(tint, (cell.x * tile + (tile - side) // 2, cell.y * tile + (tile - side) // 2))
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(size=round(0.22 * tile) + 8)
    for label, _ in _totals(cells).most_common(LABELLED):
        own = [cell for cell in cells if cell.label == label]
        middle = np.median([(cell.x, cell.y) for cell in own], axis=0)
        centre = min(own, key=lambda cell: (cell.x - middle[0]) ** 2 + (cell.y - middle[1]) ** 2)
        at = ((centre.x + 0.5) * tile, (centre.y + 0.98) * tile)
        pen.text(at, label, fill="white", font=font, anchor="md", stroke_width=4, stroke_fill=GROUND)
    return whole


def _totals(cells: Sequence[Cell]) -> Counter[str]:
    """How many images are in the cells of each class."""
    totals: Counter[str] = Counter()
    for cell in cells:
        totals[cell.label] += cell.count
    return totals


def _write_page(
    out: Path, loaded: Loaded, source: str, count: int, cells: Sequence[Cell], views: dict[str, Image.Image]
) -> Path:
    uris = {name: f"data:image/png;base64,{b64encode(png_bytes(view)).decode()}" for name, view in views.items()}
    colours = {name: "rgb({}, {}, {})".format(*colour) for name, colour in colours_of(loaded.classes).items()}
    totals = _totals(cells)
    legend = [(name, colours[name], totals[name]) for name in loaded.classes if name in totals]
    size = next(iter(views.values())).size
    return write_page(
        out / "atlas.html", Path(__file__).with_name("atlas.html.jinja"), model=loaded.name, source=source, count=count,
        cells=[asdict(cell) for cell in cells], views=uris, size=size, tile=tile_of(cells), legend=legend[:LABELLED],
    )  # fmt: skip
