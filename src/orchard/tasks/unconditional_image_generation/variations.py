"""What one call of a generative model makes: images of a seed, a walk, a sweep of the truncation or a grid of styles.

Every image has a number, from which and the options all of it follows. In a sweep of S truncations, image n is that of
noise n // S at truncation n % S. A grid of C images and C others has C + 1 rows and columns: number n is in row
n // (C + 1) and column n % (C + 1), of which row 0 and column 0 show the images themselves, and there is no number 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.errors import UsageError
from orchard.tasks.unconditional_image_generation.settings import Options

STYLED = ("mixing", "grid", "layers", "latent", "project")  # options of models with styles alone
NOISY = ("truncation", "sweep")  # of those, and of models that truncate their noise
ALONE = ("walk", "sweep", "grid", "project")  # each makes a call of its own
OPTIONS = ("truncation", "codes", "mixing", "layers", "walk", "sweep", "grid", "latent")  # an image says its own


def has_styles(model: nn.Module) -> bool:
    """Has the pair's generator styles between noise and images?"""
    return hasattr(model, "latents") and hasattr(model, "synthesise")


def truncates(model: nn.Module) -> bool:
    """Can the pair's noise be truncated?"""
    return hasattr(model, "truncate") and bool(cast(Any, model).config.prior == "normal")


def check_options(model: nn.Module, options: Options) -> None:
    """Raise UsageError for options that the model, or each other, leave no sense to."""
    styled = has_styles(model)
    for name in (*STYLED, *NOISY):
        if getattr(options, name) is None or styled or (name in NOISY and truncates(model)):
            continue
        such = "such as StyleGAN2" + (", or classes and normal noise, such as BigGAN" if name in NOISY else "")
        raise UsageError(f"option '{name}' is for models with styles, {such}; this model has none")
    if options.walk is not None and not hasattr(model, "sample_noise"):
        raise UsageError("option 'walk' is for adversarial pairs, such as DCGAN; this model is none")
    if options.codes is not None and not hasattr(model, "recognise"):
        raise UsageError("option 'codes' is for models with codes in their noise, such as InfoGAN; this model has none")
    for name, value in (("truncation", options.truncation), *(("sweep", value) for value in sweep_of(options))):
        if value is not None and styled and value > 1:
            raise UsageError(f"option '{name}' is {value:g}; of a model with styles it is 0 to 1")
        if value == 0 and not styled:
            raise UsageError(f"option '{name}' is 0; of a model with classes it is more")
    _check_together(options)
    if styled:
        layers_of(options, int(cast(Any, model).layers))


def _check_together(options: Options) -> None:
    """Raise UsageError for options of which one excludes, or needs, another."""
    given = [name for name in ALONE if getattr(options, name) is not None]
    apart = [*given, *(["mixing"] if options.mixing is not None else [])]
    if given and len(apart) > 1:
        raise UsageError(f"options '{apart[0]}' and '{apart[1]}' do not go together; leave one out")
    if options.sweep is not None and options.truncation is not None:
        raise UsageError("options 'sweep' and 'truncation' do not go together; leave one out")
    if options.walk is not None and options.count < 2:
        raise UsageError("option 'walk' needs --count, the images from its beginning to its end, of 2 or more")
    if options.animation is not None and options.walk is None:
        raise UsageError("option 'animation' is the file of a walk; name its end with --walk SEED")
    if options.layers is not None and options.mixing is None and options.grid is None:
        raise UsageError(
            "option 'layers' is for --mixing and --grid; name the seed of the other styles with one of them"
        )
    for name in ("project_steps", "project_features"):
        if getattr(options, name) is not None and options.project is None:
            raise UsageError(f"option '{name.replace('_', '-')}' is for --project; name a picture")


def sweep_of(options: Options) -> tuple[float, ...]:
    """The truncations of a sweep; none without one. UsageError for what are no numbers."""
    words = [word.strip() for word in (options.sweep or "").split(",") if word.strip()]
    try:
        found = tuple(float(word) for word in words)
    except ValueError:
        found = (-1.0,)
    if any(not 0 <= value < float("inf") for value in found) or (options.sweep is not None and not found):
        raise UsageError(f"option 'sweep' is '{options.sweep}'; expected truncations such as 0,0.5,1")
    return found


def layers_of(options: Options, styles: int) -> slice:
    """The layers, of `styles`, that take the styles of another image; UsageError for layers that there are not."""
    if options.layers is None:
        return slice(styles // 2, styles)
    first, dash, last = options.layers.partition("-")
    if not first.isdecimal() or not (last if dash else first).isdecimal():
        raise UsageError(f"option 'layers' is '{options.layers}'; expected layers such as 4-7")
    begin, end = int(first), int(last if dash else first)
    if not begin <= end < styles:
        raise UsageError(f"option 'layers' is '{options.layers}'; this model has layers 0 to {styles - 1}")
    return slice(begin, end + 1)


def numbers_of(options: Options) -> range:
    """The numbers of the images to make."""
    if options.grid is not None:
        return range(1, (options.count + 1) ** 2)
    return range(options.count * max(1, len(sweep_of(options))))


def noise_numbers(options: Options, numbers: Sequence[int]) -> list[int]:
    """Which noise of the seed each image is of: in a walk all begin with the first, in a grid a row has one."""
    if options.walk is not None:
        return [0] * len(numbers)
    if options.grid is not None:
        return [max(number // (options.count + 1) - 1, 0) for number in numbers]
    return [number // max(1, len(sweep_of(options))) for number in numbers]


def truncations(options: Options, numbers: Sequence[int]) -> list[float] | None:
    """The truncation of each image, where there is one."""
    sweep = sweep_of(options)
    if sweep:
        return [sweep[number % len(sweep)] for number in numbers]
    return None if options.truncation is None else [options.truncation] * len(numbers)


def columns_of(options: Options) -> int | None:
    """How many images a row of the sheet has; None for about a square."""
    if options.grid is not None:
        return options.count + 1
    return len(sweep_of(options)) or (options.count if options.classes else None)


def label_of(options: Options, number: int) -> str:
    """What a file is called: the image's number, or its row and column in a sweep or grid."""
    if options.grid is not None:
        return "{}-{}".format(*divmod(number, options.count + 1))
    if sweep := sweep_of(options):
        return "{}-{}".format(*divmod(number, len(sweep)))
    return str(number)


def between(start: Tensor, end: Tensor, shares: Tensor, *, round_sphere: bool) -> Tensor:
    """Rows (N, D) at these shares (N,) of the way from one row (1, D) to another.

    With `round_sphere` the length of normal noise is kept, as no sample is near its mean (White 2016,
    arXiv:1609.04468).
    """
    share = shares[:, None]
    if not round_sphere:
        return torch.lerp(start, end, share)
    angle = F.cosine_similarity(start, end).clamp(-1, 1).acos()
    if float(angle.sin()) < 1e-6:
        return torch.lerp(start, end, share)
    return (((1 - share) * angle).sin() * start + (share * angle).sin() * end) / angle.sin()
