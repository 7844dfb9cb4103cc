"""The report of image restoration: images before and after, and the parts that came out best and worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image

from orchard.data.resolutions import Resolutions
from orchard.report.pictures import data_uri
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.image_restoration.degradation import TOP, Degradation
from orchard.tasks.image_restoration.metrics import examples
from orchard.tasks.image_restoration.restoring import Restorer, network_of
from orchard.tasks.super_resolution.report import strongest
from orchard.training.run import RunFolder

SHOWN = 6  # images of each kind
ROWS = 100  # of the table


@dataclass(frozen=True)
class Crop:
    """A part of an image three times, as data URIs, and the PSNR of the whole."""

    key: str
    degraded: str
    found: str
    truth: str
    psnr: float
    gain: float  # over the degraded image, dB


def write_report(
    run: RunFolder, *, split: Resolutions, model: nn.Module, degradation: Degradation | None, seen: Mapping[str, Tensor]
) -> Path:
    """Write report.html about a run whose other files are written, and return its path.

    `seen` has the metrics of each image of `split` at each level, (N, levels, 2), as the model restores it ("metrics")
    and as it is given ("degraded"). Shown is the level in the middle.
    """
    metrics = run.metrics()
    figures, levels = metrics.reported, degradation.levels if degradation else ()
    middle = len(levels) // 2
    ours, before = (seen[name][:, middle].numpy() for name in ("metrics", "degraded"))
    gains = ours[:, 0] - before[:, 0]
    order = np.argsort(gains, kind="stable")
    gain = figures["psnr"] - figures["degraded_psnr"]
    words = degradation.words(*levels) if degradation else ""
    tiles = [
        Tile(
            f"{metrics.report_split.capitalize()} PSNR", f"{figures['psnr']:.2f} dB",
            f"all channels; {words}" if words else "all channels",
        ),
        Tile("Gained", f"{gain:+.2f} dB", f"as given: {figures['degraded_psnr']:.2f} dB"),
        Tile("SSIM", f"{figures['ssim']:.4f}", f"as given: {figures['degraded_ssim']:.4f}"),
    ]  # fmt: skip
    if degradation and len(levels) > 1:
        tiles += [
            Tile(f"PSNR at {level:g}", f"{figures[f'psnr_{level:g}']:.2f} dB", degradation.words(level))
            for level in levels
        ]
    curves = [
        Curve("Loss", "loss", "of pixels, range 1", falling=True),
        Curve("PSNR", "psnr", "dB"),
        Curve("SSIM", "ssim", "similarity"),
    ]
    table = [
        (split.key(n), *ours[n].tolist(), *before[n].tolist(), float(gains[n])) for n in order[:ROWS].tolist()
    ]  # fmt: skip
    crops = Crops(split, model, degradation, middle, ours[:, 0], gains)
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=curves,
        more_facts={"degradation": words or "stored in pairs"},
        report_split=metrics.report_split,
        count=len(ours),
        psnr=figures["psnr"],
        gain=gain,
        level=degradation.words(levels[middle]) if degradation else "",
        table=table,
        best=crops(order[::-1][:SHOWN].tolist(), most_helped=True),
        worst=crops(order[:SHOWN].tolist(), most_helped=False),
    )


@dataclass(frozen=True)
class Crops:
    """Makes the parts that are shown of images."""

    split: Resolutions
    model: nn.Module
    degradation: Degradation | None
    place: int  # of the level
    psnr: np.ndarray  # (N,)
    gains: np.ndarray  # (N,)

    def __call__(self, indices: Sequence[int], *, most_helped: bool) -> list[Crop]:
        """Of some images the part where the model gains, or loses, most against the degraded image."""
        found, restorer = [], Restorer(self.model)
        for index in indices:
            several = examples(self.split, index, network_of(self.model).channels, self.degradation)
            given, truth, level = list(several)[self.place]
            shown = given.round().clamp(0, TOP).byte()
            images = [to_pil_image(one) for one in (shown, restorer(given, level), truth)]
            box = strongest(images[0], images[1], images[2], most_helped=most_helped)
            before, after, real = (data_uri(image.crop(box)) for image in images)
            psnr, gain = float(self.psnr[index]), float(self.gains[index])
            found.append(Crop(self.split.key(index), before, after, real, psnr, gain))
        return found
