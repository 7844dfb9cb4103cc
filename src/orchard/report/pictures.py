"""Pictures for the report: records as small data URIs, and what the model makes of them as heat over the picture."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image

from orchard.data.contracts import ImageSplit, Preprocess
from orchard.data.preprocess import fit

THUMB = 144  # longest side in pixels of a picture in the report
SMALL = 64  # pictures up to this side are kept as they are, and shown with their pixels
TILES = 6  # heads or channels that are shown of one picture
SHORTCUT = re.compile(r"downsample|shortcut|skip|identity|residual_conv")  # what libraries call a way around a block
CELLS = 7  # rows and columns of a feature map that still show where something is


@dataclass(frozen=True)
class Insight:
    """One picture and what the model makes of it, all as data URIs."""

    key: str
    truth: str
    predicted: str
    picture: str
    tiles: list[tuple[str, str]] = field(default_factory=list)  # (what it is, data URI)


def data_uri(picture: Image.Image, longest: int = THUMB) -> str:
    """The picture inside the page: PNG where it is small, else JPEG, its longer side at most `longest`."""
    small = max(picture.size) <= SMALL
    if not small:
        picture = picture.copy()
        picture.thumbnail((longest, longest))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG" if small else "JPEG", quality=85)
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def record_uri(split: ImageSplit, index: int) -> str:
    """A record as it is stored."""
    return data_uri(to_pil_image(split.image(index)))


@torch.no_grad()
def look_inside(
    model: nn.Module, split: ImageSplit, preprocess: Preprocess, chosen: list[tuple[int, str, str]]
) -> tuple[str, list[Insight]]:
    """What the model looks at in some pictures, (index, truth, prediction) each.

    Returns one sentence that says what the tiles are, and the tiles: attention of the last block for a model that
    has `attention_maps`, else the strongest channels of its last stage with maps worth looking at. Returns
    nothing for a model that has neither.
    """
    seen = [fit(to_pil_image(split.image(index)), preprocess) for index, _, _ in chosen]
    pixels = torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2)
    device = next(model.parameters()).device
    images = preprocess.normalise(pixels).to(device)
    model.eval()
    if hasattr(model, "attention_maps"):
        attends: Any = model.attention_maps
        return _attention(attends(images).float().cpu(), seen, chosen)
    found = _last_maps(model, images)
    return _features(*found, seen, chosen) if found else ("", [])


def _attention(maps: Tensor, seen: list[np.ndarray], chosen: list[tuple[int, str, str]]) -> tuple[str, list[Insight]]:
    """maps: (B, heads, h, w)."""
    insights = []
    for heads, pixels, (index, truth, predicted) in zip(maps, seen, chosen, strict=True):
        tiles = [("all heads", _heat(pixels, heads.mean(0)))]
        tiles += [(f"head {n}", _heat(pixels, head)) for n, head in enumerate(heads[: TILES - 1], 1)]
        insights.append(Insight(str(index), truth, predicted, data_uri(_picture(pixels)), tiles))
    words = (
        f"Attention of the last block over {maps.shape[2]} × {maps.shape[3]} patches, laid over the image as the "
        "model sees it: the mean of all heads, then single heads. Each tile has its own scale, from none (dark) to "
        "the most (bright)."
    )
    return words, insights


def _features(
    layer: str, maps: Tensor, seen: list[np.ndarray], chosen: list[tuple[int, str, str]]
) -> tuple[str, list[Insight]]:
    """maps: (B, C, h, w). The channels that answer most strongly to each picture."""
    insights = []
    for channels, pixels, (index, truth, predicted) in zip(maps, seen, chosen, strict=True):
        strongest = channels.abs().mean((1, 2)).topk(min(TILES, len(channels))).indices.tolist()
        tiles = [(f"channel {c}", data_uri(_coloured(channels[c], pixels.shape[:2]))) for c in strongest]
        insights.append(Insight(str(index), truth, predicted, data_uri(_picture(pixels)), tiles))
    words = (
        f"Feature maps of {layer}, {maps.shape[2]} × {maps.shape[3]} cells, for the image as the model sees it: the "
        "channels with the strongest activation. Each tile has its own scale, from lowest (dark) to highest (bright)."
    )
    return words, insights


def _last_maps(model: nn.Module, images: Tensor) -> tuple[str, Tensor] | None:
    """Name and output of the last stage with maps of CELLS cells a side, else of the one with the largest.

    A stage's output is what its blocks make together. Of a model that does not offer its stages it is a convolution's,
    and none of a shortcut, which says little of what the block decides.
    """
    stages: Any = getattr(model, "feature_maps", None)
    if stages is not None:
        found = stages(images)
        seen = {f"stage {n} of {len(found)}": maps.float().cpu() for n, maps in enumerate(found, 1)}
    else:
        seen = _outputs_of_convolutions(model, images)
    seen = {name: maps for name, maps in seen.items() if len(maps) == len(images)}  # some cut pictures into windows
    if not seen:
        return None
    worth = [name for name, maps in seen.items() if min(maps.shape[2:]) >= CELLS]
    name = worth[-1] if worth else max(seen, key=lambda name: min(seen[name].shape[2:]))
    return name, seen[name]


def _outputs_of_convolutions(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """In the order in which they are computed, by name, shortcuts left out."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, inputs, output: seen.update({name: output.float().cpu()})

    modules = ((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and not SHORTCUT.search(n))
    hooks = [module.register_forward_hook(keep(name)) for name, module in modules]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _coloured(grid: Tensor, size: tuple[int, ...]) -> Image.Image:
    """One map (h, w) in colours, enlarged cell by cell to about the picture's size."""
    levels = _scaled(grid, float(grid.min()))
    colours = (colormaps["viridis"](levels)[:, :, :3] * 255).astype(np.uint8)
    side = (min(max(size[1], SMALL), THUMB), min(max(size[0], SMALL), THUMB))
    return Image.fromarray(colours).resize(side, Image.Resampling.NEAREST)


def _heat(pixels: np.ndarray, weights: Tensor) -> str:
    """The picture under the colours of the weights (h, w)."""
    height, width = pixels.shape[:2]
    scale = max(SMALL / max(height, width), 1.0) if max(height, width) < SMALL else min(THUMB / max(height, width), 1.0)
    picture = _picture(pixels).resize((round(width * scale), round(height * scale)), Image.Resampling.NEAREST)
    return data_uri(lay_heat(picture, weights))


def lay_heat(picture: Image.Image, weights: Tensor) -> Image.Image:
    """The picture, grey and dimmed, under the colours of weights (h, w) from 0 (dark) to the highest (bright)."""
    base = picture.convert("L").convert("RGB")
    levels = np.asarray(Image.fromarray(_scaled(weights, 0.0)).resize(base.size, Image.Resampling.BICUBIC)).clip(0, 1)
    colours = colormaps["inferno"](levels)[:, :, :3] * 255
    alpha = (0.35 + 0.5 * levels)[:, :, None]
    return Image.fromarray((np.asarray(base) * (1 - alpha) + colours * alpha).astype(np.uint8))


def lay_signs(picture: Image.Image, evidence: Tensor) -> Image.Image:
    """The picture, grey and dimmed, under evidence (h, w): red where it is above 0, blue where it is below."""
    strongest = float(np.quantile(evidence.abs().numpy(), 0.99)) or float(evidence.abs().max()) or 1.0
    grid = Image.fromarray((evidence / strongest).numpy().astype(np.float32))
    levels = np.asarray(grid.resize(picture.size, Image.Resampling.BILINEAR)).clip(-1, 1)
    colours = np.where(levels[:, :, None] > 0, (255, 80, 40), (60, 140, 255))
    base = np.asarray(picture.convert("L").convert("RGB")) * 0.45
    alpha = np.abs(levels[:, :, None]) ** 0.7 * 0.9
    return Image.fromarray((base * (1 - alpha) + colours * alpha).astype(np.uint8))


def _scaled(grid: Tensor, low: float) -> np.ndarray:
    """From 0 at `low` to 1 at the highest; float32 (h, w)."""
    scaled: np.ndarray = ((grid - low) / (grid.max() - low).clamp_min(1e-12)).numpy().astype(np.float32)
    return scaled
