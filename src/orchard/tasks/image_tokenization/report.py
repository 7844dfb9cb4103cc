"""The report of an image tokenizer: what it draws of pictures, and which codes it needs for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image

from orchard.data.contracts import ImageSplit, Preprocess
from orchard.data.preprocess import fit
from orchard.report.charts import percent, short
from orchard.report.pictures import data_uri
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.training.run import RunFolder

SHOWN = 12  # pictures of each kind
MOST_BARS = 256  # of the histogram; more codes share bars
MOST_DRAWN = 256  # codes up to which each is drawn alone


@dataclass(frozen=True)
class Pair:
    """A picture and what came of it, as data URIs; `psnr` in dB."""

    key: str
    picture: str
    drawn: str
    psnr: float


def write_tokenizer_report(
    run: RunFolder,
    *,
    split: ImageSplit,
    preprocess: Preprocess,
    tokenizer: nn.Module,
    seen: Mapping[str, Tensor],
    discriminator: bool,
) -> Path:
    """Write report.html about a run whose other files are written, and return its path.

    `seen` is what the tokenizer made of `split`: `error` (N,), the mean squared difference of each picture on the
    tokenizer's scale, and `counts` (codes,), how often each code occurs.
    """
    metrics = run.metrics()
    report_split, figures = metrics.report_split, metrics.reported
    errors, counts = seen["error"], seen["counts"]
    low, high = cast(tuple[float, float], tokenizer.value_range)
    ratios = 10 * torch.log10((high - low) ** 2 / errors.clamp_min(1e-10))
    count = len(errors)
    spread = [round(place) for place in np.linspace(0, count - 1, min(SHOWN, count))]
    worst = errors.argsort(descending=True)[:SHOWN]
    rows, columns = (side // cast(int, tokenizer.stride) for side in preprocess.size)
    used = int((counts > 0).sum())
    bits = rows * columns * math.log2(len(counts))
    raw = preprocess.size[0] * preprocess.size[1] * preprocess.channels * 8
    tiles = [
        Tile(f"{report_split.capitalize()} PSNR", f"{figures['psnr']:.2f} dB", f"mean of {count:,} pictures"),
        Tile("SSIM", f"{figures['ssim']:.3f}", "1 is the same picture"),
        Tile("Codes used", percent(figures["codebook_use"]), f"{used:,} of {len(counts):,}"),
        Tile("Perplexity", short(figures["code_perplexity"]), "codes as hard to guess, were all as frequent"),
        Tile("Bits", f"{bits:,.0f}", f"a picture, 1/{raw / bits:.0f} of its pixels'"),
    ]
    curves = [
        Curve("Loss", "loss", "weighted sum", falling=True),
        Curve("Difference of pixels", "pixel_loss", "mean", falling=True),
        Curve("Difference of vectors and codes", "codebook_loss", "mean square", falling=True),
        Curve("PSNR", "psnr", "dB"),
        Curve("SSIM", "ssim", "similarity"),
        Curve("Codes used", "codebook_use", "share of the codebook", percent=True),
        Curve("Code perplexity", "code_perplexity", "codes"),
    ]
    if discriminator:
        curves += [
            Curve("Discriminator's loss", "discriminator_loss", "hinge; 1: cannot tell"),
            Curve("Discriminator's score of pictures", "score_real", "score"),
            Curve("Discriminator's score of what is drawn", "score_fake", "score"),
            Curve("Discriminator's weight", "adaptive_weight", "ratio of gradients", falling=True),
        ]
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=curves,
        more_facts={
            "picture": " × ".join(map(str, (*preprocess.size, preprocess.channels))),
            "codes": f"{rows} × {columns} of {len(counts):,}",
        },
        report_split=report_split,
        count=count,
        psnr=figures["psnr"],
        typical=_pairs(split, preprocess, tokenizer, spread, ratios),
        worst=_pairs(split, preprocess, tokenizer, worst.tolist(), ratios),
        bars=_histogram(counts),
        alphabet=_alphabet(tokenizer, counts, (rows, columns), preprocess),
        used=used,
        codes=len(counts),
    )


@torch.no_grad()
def _pairs(
    split: ImageSplit, preprocess: Preprocess, tokenizer: nn.Module, places: Sequence[int], ratios: Tensor
) -> list[Pair]:
    """Pictures of a split as the tokenizer is given them, beside what it draws."""
    seen = [fit(to_pil_image(split.image(place)), preprocess) for place in places]
    pixels = torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2)
    device = next(tokenizer.parameters()).device
    drawn = _to_pixels(tokenizer(preprocess.normalise(pixels).to(device)).images, preprocess)
    return [
        Pair(split.key(place), data_uri(_picture(picture)), data_uri(_picture(again)), float(ratios[place]))
        for place, picture, again in zip(places, seen, drawn, strict=True)
    ]


def _to_pixels(images: Tensor, preprocess: Preprocess) -> np.ndarray:
    """From the tokenizer's scale (B, C, H, W) to (B, H, W, C) uint8."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (preprocess.mean, preprocess.std))
    levels = ((images.float().cpu() * std + mean) * 255).round().clamp(0, 255)
    pixels: np.ndarray = levels.permute(0, 2, 3, 1).numpy().astype(np.uint8)
    return pixels


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _histogram(counts: Tensor) -> list[dict[str, Any]]:
    """Bars from the most to the least frequent code, in a box of 640 by 150."""
    total, ordered = max(int(counts.sum()), 1), counts.sort(descending=True).values.double()
    heights = torch.stack([chunk.mean() for chunk in ordered.tensor_split(min(MOST_BARS, len(ordered)))])
    step, largest = 640 / len(heights), max(float(heights.max()), 1e-9)
    return [
        {"x": round(n * step, 2), "width": round(max(step - 0.6, 0.6), 2), "height": round(h / largest * 150, 2),
         "says": f"{n + 1}. of {len(heights)}: {percent(h / total)} of all places"}
        for n, h in enumerate(heights.tolist())
    ]  # fmt: skip


@torch.no_grad()
def _alphabet(
    tokenizer: nn.Module, counts: Tensor, grid: tuple[int, int], preprocess: Preprocess
) -> list[tuple[str, str]]:
    """What each code paints where all places hold it, from the most frequent on: (what it is, data URI)."""
    order = counts.argsort(descending=True)[:MOST_DRAWN]
    device = next(tokenizer.parameters()).device
    decode: Any = tokenizer.decode
    drawn = []
    for start in range(0, len(order), 64):
        filled = order[start : start + 64].view(-1, 1, 1).expand(-1, *grid).contiguous().to(device)
        drawn.append(_to_pixels(decode(filled), preprocess))
    middle = _middle_cell(np.concatenate(drawn), cast(int, tokenizer.stride))
    return [
        (f"code {code}, {int(counts[code]):,} times", data_uri(_picture(cell)))
        for code, cell in zip(order.tolist(), middle, strict=True)
    ]


def _middle_cell(pictures: np.ndarray, stride: int) -> np.ndarray:
    """The cell in the middle of each picture (B, H, W, C), where no border has a say."""
    top, left = (pictures.shape[side] // stride // 2 * stride for side in (1, 2))
    return pictures[:, top : top + stride, left : left + stride]
