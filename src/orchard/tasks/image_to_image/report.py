"""The report of image to image: inputs beside outputs through time, and the pictures that came out worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.two_sides.contracts import TwoSides
from orchard.models.translation.contract import Direction
from orchard.report.pictures import data_uri, lay_heat
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.image_to_image.alone import AloneFamily
from orchard.tasks.image_to_image.measuring import WAYS, Looks
from orchard.tasks.image_to_image.translating import TOP, to_picture, translated
from orchard.training.run import RunFolder

SHOWN = 8  # pictures of each kind
ROWS = 100  # of the table

PAIRED_CURVES = (
    Curve("Difference of pixels", "l1", "absolute, range 1", falling=True),
    Curve("PSNR", "psnr", "dB"),
    Curve("SSIM", "ssim", "similarity"),
)
UNPAIRED_CURVES = (
    Curve("Fréchet distance, A to B", "fid_AtoB", "of features, less is better", falling=True),
    Curve("Fréchet distance, B to A", "fid_BtoA", "of features, less is better", falling=True),
    Curve("Changed there and back", "cycle_l1", "absolute difference, range 1", falling=True),
)


@dataclass(frozen=True)
class Example:
    """A picture in several forms, as data URIs with what each is, and its figure."""

    key: str
    figure: str
    forms: list[tuple[str, str]]


def write_report(
    run: RunFolder,
    *,
    split: TwoSides,
    model: nn.Module,
    looks: Looks,
    direction: str,
    seen: Mapping[str, Tensor],
    curves: Sequence[Curve],
    family: AloneFamily | None = None,
) -> Path:
    """Write report.html about a run whose other files are written, and return its path.

    Args:
        run: the run's folder, with its metrics.
        split: the split of the report.
        model: the trained model.
        looks: how pictures come to it.
        direction: of pairs, which side is made of which.
        seen: `given` (n, C, H, W) uint8 of the validation split and `history` (K, 10, C', h, w) uint8 of what was made
            of them at the moments `steps` (K,); of `split`, `pairs` (N, 3), or `A` and `B` (N,) of there and back.
        curves: those of the objective.
        family: the family, where it learns from pictures alone and has its own words.
    """
    metrics = run.metrics()
    figures, paired = metrics.reported, split.paired and "pairs" in seen
    told = family.tell(figures) if family else None
    if told:
        own, lead, values = list(told.tiles), told.lead, {direction: seen["pairs"][:, 0].numpy()}
    elif paired:
        own = [
            Tile("Difference of pixels", f"{figures['l1']:.4f}", "absolute, of values from 0 to 1"),
            Tile("PSNR", f"{figures['psnr']:.2f} dB", "all channels"),
            Tile("SSIM", f"{figures['ssim']:.4f}", "window of 11 pixels"),
        ]
        values = {direction: seen["pairs"][:, 0].numpy()}
        lead = f"differs from the truth by {figures['l1']:.4f}"
    else:
        own = [
            Tile("Fréchet distance", f"{figures['fid']:.3g}", "mean of both directions, fixed random weights"),
            *(Tile(f"{way[0]} to {way[-1]}", f"{figures[f'fid_{way}']:.3g}", "Fréchet distance") for way in WAYS),
            Tile("Changed there and back", f"{figures['cycle_l1']:.4f}", "absolute, of values from 0 to 1"),
        ]
        values = {way: seen[way[0]].numpy() for way in WAYS}
        lead = f"is at a Fréchet distance of {figures['fid']:.3g} from real pictures"
    shown = Pictures(split, model, looks, paired)
    worst = {way: shown(way, np.argsort(-each, kind="stable")[:SHOWN], each) for way, each in values.items()}
    first = {way: shown(way, np.arange(min(SHOWN, len(each))), each) for way, each in values.items()}
    table = sorted(
        ((shown.key(way, n), way, float(value)) for way, each in values.items() for n, value in enumerate(each)),
        key=lambda row: -row[-1],
    )
    moments = [
        (step, [data_uri(to_picture(image)) for image in images[: len(seen["given"])]])
        for step, images in zip(seen["steps"].tolist(), seen["history"], strict=True)
        if step
    ]
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=own,
        curves=[*(told.curves if told else PAIRED_CURVES if paired else UNPAIRED_CURVES), *curves],
        more_facts={} if told else {"direction": direction if paired else "both"},
        figure=told.figure if told else "",
        report_split=metrics.report_split,
        lead=lead,
        paired=paired,
        attends=hasattr(model, "attend"),
        given=[data_uri(to_picture(image)) for image in seen["given"]],
        moments=moments,
        worst=worst,
        first=first,
        table=table[:ROWS],
        count=len(table),
    )


@dataclass(frozen=True)
class Pictures:
    """Makes what is shown of some pictures of a split."""

    split: TwoSides
    model: nn.Module
    looks: Looks
    paired: bool

    def key(self, way: str, index: int) -> str:
        return Path(self.split.side(way[0]).key(index)).name

    def __call__(self, way: str, indices: np.ndarray, values: np.ndarray) -> list[Example]:
        """What is given, what is made of it, and the truth, or what comes back where there is none; and between the
        first two where a model that attends looked."""
        given = self.looks.pictures(self.split, way[0], indices)
        made = translated(self.model, given, "AtoB" if self.paired else cast(Direction, way))
        if self.paired:
            name, last = "truth", self.looks.pictures(self.split, way[-1], indices)
        else:
            back = WAYS[1 - WAYS.index(cast(Direction, way))]
            name, last = "and back", translated(self.model, made, back)
        examples = []
        for k, n in enumerate(indices):
            forms = [(what, to_picture(image)) for what, image in (("given", given[k]), ("translated", made[k]),
                                                                     (name, last[k]))]  # fmt: skip
            if hasattr(self.model, "attend"):
                heat = heat_of(self.model, given[k : k + 1], cast(Direction, way))
                forms.insert(1, ("where it looked", lay_heat(forms[0][1], heat - heat.min())))
            shown = [(what, data_uri(image)) for what, image in forms]
            examples.append(Example(self.key(way, int(n)), f"{values[n]:.4f}", shown))
        return examples


@torch.no_grad()
def heat_of(model: Any, pixels: Tensor, direction: Direction) -> Tensor:
    """Where a model that attends looked in one picture (1, C, H, W) uint8, (h, w) on the CPU."""
    device = next(model.parameters()).device
    heat: Tensor = model.attend(pixels.to(device).float() * (2 / TOP) - 1, direction).heat
    return heat[0, 0].float().cpu()
