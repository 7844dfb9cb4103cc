"""Feature visualisation: images that a class, a channel or a direction responds to most, found by optimisation.

Olah, Mordvintsev & Schubert 2017 (doi:10.23915/distill.00007). The image is kept as a spectrum in decorrelated colours,
in which all frequencies learn alike, and is moved, turned and scaled a little before each step, so that what stays is
what does not hang on single pixels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image

from orchard.data.contracts import Preprocess
from orchard.errors import UsageError
from orchard.inference.loading import Loaded
from orchard.inference.png_files import save_picture, sheet
from orchard.report.pictures import data_uri
from orchard.tasks.base import on_device
from orchard.tasks.image_classification.explain.page import Shown, file_name, with_bar, write_gallery

STEPS, LR = 256, 0.05
AT_ONCE = 16  # images that are optimised together; they are written before the next begin
SHIFT, ANGLE, SCALE = 0.06, 10.0, 0.1  # largest move (share of a side), turn (degrees) and change of size
SIDE = 256  # pixels up to which small results are enlarged
# Square root of the covariance of colours in ImageNet, as Lucid states it; columns are its axes, brightness first.
COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
WORDS = (
    "Feature visualisation: each image was optimised from noise until the model responded to it most. It shows what "
    "raises the response, not what the class has to look like."
)
Objective = Callable[[Tensor], Tensor]  # normalised images (B, C, H, W) to what each is to raise, (B,)


def explain_features(loaded: Loaded, class_name: str | None, units: Sequence[str], out: Path) -> dict[str, Any]:
    """A PNG for each class (or the one named) or unit, a sheet and a page with all. Ctrl-C keeps what is done."""
    model, _ = on_device(loaded.model)
    places = [read_unit(model, loaded, unit) for unit in units]
    names = list(units) or ([class_name] if class_name else list(loaded.classes))
    targets = [loaded.classes.index(name) for name in names] if not units else []
    rows: list[dict[str, Any]] = []
    shown: list[Shown] = []
    done: list[Image.Image] = []
    taken: set[str] = {"features"}
    try:
        for start in range(0, len(names), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            objective = of_units(model, places[part]) if units else of_classes(model, targets[part])
            words = f"features {min(start + AT_ONCE, len(names))} of {len(names)}:"
            images, responses = visualise(model, loaded.pictures, objective, len(names[part]), words=words)
            for name, image, response in zip(names[part], images, responses.tolist(), strict=True):
                picture = enlarged(image)
                path = out / file_name(name.replace(":", "-"), taken)
                save_picture(picture, path)
                done.append(picture)
                rows.append({"unit" if units else "class": name, "activation": response, "file": str(path)})
                note = f"activation {response:.3g}" if units else f"logit {response:.3g}"
                shown.append(Shown(name, (("image", data_uri(picture, SIDE)),), note=note))
    finally:  # Ctrl-C too
        if done:
            save_picture(sheet(done), out / "features.png")
            lead = "What its channels respond to most." if units else "What its classes respond to most."
            write_gallery(out, f"What {loaded.name} has learned", lead, WORDS, shown)
    return {"method": "features", "page": str(out / "explain.html"), "explanations": rows}


def read_unit(model: Any, loaded: Loaded, unit: str) -> tuple[int, int]:
    """Stage and channel, both from 0, of "STAGE:CHANNEL"; UsageError where the model has none of that number."""
    if not hasattr(model, "feature_maps"):
        raise UsageError(f"{loaded.name} has no stages to name a unit of; leave out --unit to see its classes")
    if not (found := re.fullmatch(r"(\d+):(\d+)", unit)):
        raise UsageError(f"unit '{unit}': expected STAGE:CHANNEL, such as {len(model.channels)}:0")
    stage, channel = int(found[1]), int(found[2])
    if not 1 <= stage <= len(model.channels):
        raise UsageError(f"unit '{unit}': {loaded.name} has stages 1 to {len(model.channels)}")
    if channel >= model.channels[stage - 1]:
        raise UsageError(
            f"unit '{unit}': stage {stage} of {loaded.name} has channels 0 to {model.channels[stage - 1] - 1}"
        )
    return stage - 1, channel


def of_classes(model: nn.Module, targets: Sequence[int]) -> Objective:
    """The logits of the classes, one for each image."""
    places = torch.tensor(targets)
    return lambda images: model(images).gather(1, places.to(images.device)[:, None])[:, 0]


def of_units(model: Any, places: Sequence[tuple[int, int]]) -> Objective:
    """The mean activation of a channel of a stage, one for each image."""

    def objective(images: Tensor) -> Tensor:
        maps = model.feature_maps(images)
        return torch.stack([maps[stage][n, channel].mean() for n, (stage, channel) in enumerate(places)])

    return objective


def visualise(
    model: nn.Module,
    preprocess: Preprocess,
    objective: Objective,
    count: int,
    *,
    words: str = "features:",
    steps: int = STEPS,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """`count` images (count, C, H, W) in [0, 1] that raise `objective`, and what it says of them (count,).

    The same seed gives the same images.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    height, width = preprocess.size
    noise = torch.randn(count, preprocess.channels, height, width // 2 + 1, 2, generator=generator)
    spectrum = (0.01 * noise).to(device).requires_grad_()
    optimizer = torch.optim.Adam([spectrum], lr=LR)

    def respond(images: Tensor) -> Tensor:
        return objective(preprocess.normalise(images * 255))

    with torch.enable_grad():
        for _ in with_bar(range(steps), words, steps):
            (spectrum.grad,) = torch.autograd.grad(
                -respond(_moved(_decoded(spectrum, width), generator)).sum(), spectrum
            )
            optimizer.step()
    with torch.no_grad():
        images = _decoded(spectrum, width)
        return images.cpu(), respond(images).cpu()


def _decoded(spectrum: Tensor, width: int) -> Tensor:
    """A spectrum (B, C, H, W // 2 + 1, 2) to images (B, C, H, W) in [0, 1].

    High frequencies count less, as they do in photographs.
    """
    height, device = spectrum.shape[2], spectrum.device
    down, across = torch.fft.fftfreq(height, device=device)[:, None], torch.fft.rfftfreq(width, device=device)
    frequency = (down**2 + across**2).sqrt().clamp_min(1 / max(height, width))
    scaled = torch.view_as_complex(spectrum) * ((height * width) ** 0.5 / frequency)
    values = torch.fft.irfft2(scaled, s=(height, width)) / 4
    if values.shape[1] == 3:
        mixing = torch.tensor(COLOURS, device=device)
        values = torch.einsum("bchw,kc->bkhw", values, mixing / mixing.norm(dim=0).max())
    return values.sigmoid()


def _moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image shifted, turned and scaled at random, what comes in at the borders mirrored."""
    shift_x, shift_y, turn, scale = (torch.rand(4, len(images), generator=generator) * 2 - 1).to(images.device)
    angle, size = turn * ANGLE * torch.pi / 180, 1 + scale * SCALE
    cos, sin = angle.cos() * size, angle.sin() * size
    rows = torch.stack([cos, -sin, 2 * SHIFT * shift_x, sin, cos, 2 * SHIFT * shift_y], 1).view(-1, 2, 3)
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def enlarged(image: Tensor) -> Image.Image:
    """(C, H, W) in [0, 1] as a picture; a small one is made larger, smoothly, as its spectrum is smooth."""
    picture = to_pil_image(image)
    scale = SIDE / max(picture.size)
    if scale <= 1:
        return picture
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
