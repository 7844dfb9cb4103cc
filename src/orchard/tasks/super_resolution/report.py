"""The report of super-resolution: images beside bicubic enlargement, and the parts that came out best and worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

from orchard.data.resolutions import Resolutions, enlarge
from orchard.report.pictures import data_uri
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.super_resolution.metrics import luma
from orchard.tasks.super_resolution.upscaling import Upscaler, network_of
from orchard.training.run import RunFolder

SHOWN = 6  # images of each kind
CROP = 64  # pixels a side of the part that is shown of each, at high resolution
ROWS = 100  # of the table


@dataclass(frozen=True)
class Crop:
    """A part of an image three times, as data URIs, and the PSNR of the whole."""

    key: str
    bicubic: str
    found: str
    truth: str
    psnr: float
    gain: float  # over bicubic, dB


def write_report(
    run: RunFolder, *, split: Resolutions, model: nn.Module, seen: Mapping[str, Tensor], curves: Sequence[Curve] = ()
) -> Path:
    """Write report.html about a run whose other files are written, and return its path. `curves` are more of them.

    `seen` has the metrics of each image of `split` at each scale, (N, scales, 3), as the model ("metrics") and as
    bicubic enlargement ("bicubic") have them. Shown is the largest scale.
    """
    metrics = run.metrics()
    figures, scale = metrics.reported, network_of(model).scales[-1]
    ours, bicubic = (seen[name][:, -1].numpy() for name in ("metrics", "bicubic"))
    gains = ours[:, 0] - bicubic[:, 0]
    order = np.argsort(gains, kind="stable")
    gain = figures["psnr"] - figures["bicubic_psnr"]
    tiles = [
        Tile(
            f"{metrics.report_split.capitalize()} PSNR", f"{figures['psnr']:.2f} dB",
            f"luma, {scale} pixels off each side",
        ),
        Tile("Over bicubic", f"{gain:+.2f} dB", f"bicubic: {figures['bicubic_psnr']:.2f} dB"),
        Tile("SSIM", f"{figures['ssim']:.4f}", f"luma; bicubic: {figures['bicubic_ssim']:.4f}"),
        Tile(
            "PSNR of RGB", f"{figures['psnr_rgb']:.2f} dB",
            f"with the border; bicubic: {figures['bicubic_psnr_rgb']:.2f} dB",
        ),
    ]  # fmt: skip
    curves = [
        *curves,
        Curve("Loss", "loss", "of pixels, range 1", falling=True),
        Curve("PSNR", "psnr", "dB"),
        Curve("SSIM", "ssim", "similarity"),
    ]
    table = [
        (split.key(n), *ours[n, :2].tolist(), *bicubic[n, :2].tolist(), float(gains[n])) for n in order[:ROWS].tolist()
    ]
    upscale = Upscaler(model, scale)
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=curves,
        more_facts={"scale": " and ".join(f"x{one}" for one in network_of(model).scales)},
        report_split=metrics.report_split,
        count=len(ours),
        psnr=figures["psnr"],
        gain=gain,
        table=table,
        best=crops(split, upscale, order[::-1][:SHOWN].tolist(), ours, gains, most_helped=True),
        worst=crops(split, upscale, order[:SHOWN].tolist(), ours, gains, most_helped=False),
    )


def crops(
    split: Resolutions,
    upscale: Upscaler,
    places: Sequence[int],
    ours: np.ndarray,
    gains: np.ndarray,
    *,
    most_helped: bool,
) -> list[Crop]:
    """Of some images the part where the model gains, or loses, most against bicubic."""
    found = []
    for place in places:
        low, truth = split.pair(place, upscale.scale)
        images = (enlarge(low, upscale.scale), upscale(low, split.reference(place)), truth)
        box = strongest(*images, most_helped=most_helped)
        bicubic, model, real = (data_uri(image.crop(box)) for image in images)
        found.append(Crop(split.key(place), bicubic, model, real, float(ours[place, 0]), float(gains[place])))
    return found


def strongest(
    bicubic: Image.Image, found: Image.Image, truth: Image.Image, *, most_helped: bool
) -> tuple[int, int, int, int]:
    """The part of up to `CROP` pixels a side, of those that do not overlap, in which the errors differ most."""
    a, b, t = (luma(pil_to_tensor(image).float())[0] for image in (bicubic, found, truth))
    difference = (a - t).square() - (b - t).square()
    if not most_helped:
        difference = -difference
    height, width = (min(CROP, side) for side in difference.shape)
    sums = torch.nn.functional.avg_pool2d(difference[None], (height, width), ceil_mode=False)[0]
    place = int(sums.argmax())
    top, left = place // sums.shape[1] * height, place % sums.shape[1] * width
    return left, top, left + width, top + height
