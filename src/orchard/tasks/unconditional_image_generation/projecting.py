"""`orchard generate RUN --project picture.png`: the picture that a model's styles come nearest to it with, as files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torchmetrics.functional.image import peak_signal_noise_ratio
from torchvision.transforms.functional import to_pil_image

from orchard.errors import OrchardError
from orchard.inference.artifacts import Artifact, Summary
from orchard.inference.image_files import read_pixels
from orchard.inference.loading import Loaded
from orchard.inference.png_files import save_picture, sheet, write_bytes
from orchard.tasks import base
from orchard.tasks.unconditional_image_generation import growing
from orchard.tasks.unconditional_image_generation.compared import to_pixels
from orchard.tasks.unconditional_image_generation.feature_distance import feature_distance, in_unit_range
from orchard.tasks.unconditional_image_generation.judge import judge_again, make_judge
from orchard.tasks.unconditional_image_generation.latents import latents_bytes
from orchard.tasks.unconditional_image_generation.projection import project
from orchard.tasks.unconditional_image_generation.settings import Options
from orchard.weights.portable import fingerprint_of

STEPS = 1000


def projected(loaded: Loaded, options: Options, out: Path) -> Iterator[Artifact]:
    """Write target.png, projected.png, both as sheet.png, and latent.npz, which `--latent` takes.

    Raises OrchardError for a picture that cannot be read, or a judge that is not to be had.
    """
    from rich.progress import Progress

    from orchard.console import Console

    picture, steps, preprocess = Path(str(options.project)), options.project_steps or STEPS, loaded.pictures
    target = read_pixels(picture, preprocess)
    if isinstance(target, str):
        raise OrchardError(f"{picture}: {target}")
    model, device = base.on_device(loaded.model)
    pair: Any = model
    if growing.grows(pair):
        pair.read_growth()
    if options.project_features is None:
        judge = judge_again(loaded.facts, preprocess.channels, device)
    else:
        judge = make_judge(str(options.project_features), preprocess.channels, device)
    wanted = target[None].to(device).float() / 255
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(f"{steps} steps", total=steps)
        found = project(
            pair,
            lambda image: feature_distance(
                judge, in_unit_range(growing.full_size(image, pair), preprocess.mean, preprocess.std), wanted
            ),
            steps,
            lambda step: progress.update(bar, completed=step),
        )
    with torch.no_grad():
        made = to_pixels(growing.full_size(pair.synthesise(found.styles, found.maps), pair), preprocess)[0]
    psnr = float(peak_signal_noise_ratio(made.double(), target.double(), data_range=255.0))
    images = [to_pil_image(one) for one in (target, made)]
    about = {"model": loaded.name, "model_hash": fingerprint_of(loaded.model), "project": picture.name}
    images[1].info.update(about | {"project_steps": str(steps)})
    files = {name: out / f"{name}.png" for name in ("target", "projected", "sheet")}
    for file, image in zip(files.values(), [*images, sheet(images, 2)], strict=True):
        save_picture(image, file)
    write_bytes(out / "latent.npz", latents_bytes(found))
    values = {
        **{name: str(file) for name, file in files.items()},
        "latent": str(out / "latent.npz"),
        "psnr": psnr,
        "steps": steps,
        "features": judge.words,
    }
    yield Summary(
        f"{files['projected']}: PSNR {psnr:.2f} dB after {steps:,} steps, by features of {judge.words}", values
    )
