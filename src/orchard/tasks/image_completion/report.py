"""The report of a model of pixels: what it makes, what it makes of parts of images, and its palette."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from orchard.data.batches import ImageBatch
from orchard.inference.loading import Loaded
from orchard.report.charts import percent
from orchard.report.pictures import data_uri
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.image_completion.objective import PixelObjective
from orchard.tasks.image_completion.pipeline import ImageCompleter
from orchard.tasks.image_completion.settings import Options
from orchard.training.run import RunFolder

SAMPLES, COMPLETIONS = 24, 3


def write_completion_report(run: RunFolder, loaded: Loaded, objective: PixelObjective, shown: ImageBatch) -> Path:
    """Write report.html about a run whose other files are written, and return its path.

    `shown` are images of the report's split that are completed, or some of whose pixels are masked and filled in.
    """
    metrics = run.metrics()
    found, config = metrics.reported, loaded.model.config
    palette = objective.palette.to(torch.device("cpu"))
    rows, samples = masked_rows(loaded.model, objective, shown), list[str]()
    if config.causal:  # type: ignore[union-attr]
        completer = ImageCompleter(loaded)
        samples = _uris(completer.images(completer.generate(None, Options(count=SAMPLES)), 0))
        rows = completed_rows(completer, shown)
    saved = found["unigram_bits_per_pixel"] - found["bits_per_pixel"]
    tiles = [
        Tile("Bits per pixel", f"{found['bits_per_pixel']:.3f}", f"{metrics.report_split}, less is better"),
        Tile("Accuracy", percent(found["accuracy"]), "pixels whose most likely colour is right"),
        Tile("By frequency alone", f"{found['unigram_bits_per_pixel']:.3f}", f"bits per pixel, {saved:.3f} more"),
        Tile("Palette", f"{len(palette)}", "colours" if palette.channels == 3 else "grey levels"),
    ]
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=[Curve("Bits per pixel", "bits_per_pixel", "bits per pixel", falling=True),
                Curve("Accuracy", "accuracy", "pixels whose most likely colour is right", percent=True)],
        more_facts={"colours": len(palette)},
        report_split=metrics.report_split,
        found=found,
        causal=config.causal,  # type: ignore[union-attr]
        samples=samples,
        rows=rows,
        completions=COMPLETIONS if config.causal else 1,  # type: ignore[union-attr]
        palette=[_css(colour) for colour in palette.decode(torch.arange(len(palette))[:, None])],
    )  # fmt: skip


def completed_rows(completer: ImageCompleter, shown: ImageBatch) -> list[list[str]]:
    """Of each image the part that is kept, what was made of it, and the image itself."""
    options = Options(count=COMPLETIONS)
    given = completer.palette.quantize(shown.images.to(completer.device))
    made = completer.images(completer.generate(given, options), 0)
    parts, truths = completer.given_part(given, options), completer.images(given, 0)
    return [
        _uris([part, *made[n * COMPLETIONS : (n + 1) * COMPLETIONS], truth])
        for n, (part, truth) in enumerate(zip(parts, truths, strict=True))
    ]


@torch.no_grad()
def masked_rows(model: Any, objective: PixelObjective, shown: ImageBatch) -> list[list[str]]:
    """Of each image what is seen of it, with the most likely colours filled in, and the image itself."""
    palette = objective.palette
    colours = palette.quantize(shown.images.to(palette.colours.device))
    tokens, masked = objective.asked(colours, shown.indices.numpy())
    if masked is None:
        return []
    filled = colours.where(~masked, model.eval()(tokens).argmax(-1))
    seen = palette.decode(colours).masked_fill(masked.view(len(colours), 1, *shown.images.shape[2:]), 128)
    triples = zip(seen, palette.decode(filled), palette.decode(colours), strict=True)
    return [_uris([to_pil_image(one.cpu()) for one in triple]) for triple in triples]


def _uris(images: list[Image.Image]) -> list[str]:
    return [data_uri(image) for image in images]


def _css(colour: Tensor) -> str:
    """A colour (C, 1, 1) uint8 as a page has it."""
    levels = colour.flatten().tolist()
    return "#" + "".join(f"{level:02x}" for level in (levels if len(levels) == 3 else levels * 3))
