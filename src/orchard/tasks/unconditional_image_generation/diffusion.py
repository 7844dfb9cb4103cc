"""How a denoiser learns: noise is added to images, and what the model sees in them is compared with what there is.

The process (how much noise, what is predicted, where the variance is from) is part of the model's configuration; the
loss is the training's (Ho et al. 2020, arXiv:2006.11239; Nichol & Dhariwal 2021, arXiv:2102.09672).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.errors import UsageError
from orchard.inference.diffusion import DDIM, Ancestral, ImageNoise, Predict, Sampler, sample
from orchard.nn.diffusion import Denoised, Diffusion
from orchard.nn.diffusion_loss import (
    BoundLoss,
    DiffusionLoss,
    HybridLoss,
    SimpleLoss,
    bound_terms,
    prior_term,
    squared_error,
)
from orchard.nn.noise_schedule import spaced_steps
from orchard.report.run_page import Curve
from orchard.tasks.unconditional_image_generation.settings import DiffusionSettings, Options, Settings
from orchard.tasks.unconditional_image_generation.variations import check_options
from orchard.training.phases import Phase, one_phase
from orchard.training.settings import OptimizerSettings

NEEDS = "a process of noise"
STEPS = 50  # in which images are made where nothing else is said
SEED = 0  # of the noise that is added for metrics, so that they differ by the weights alone
GOLDEN_RATIO = 0.6180339887498949  # its multiples, modulo 1, are spread evenly however many there are


def suits(model: nn.Module) -> bool:
    """Does the model's configuration have a process?"""
    return hasattr(getattr(model, "config", None), "process")


@cache
def process_of(config: Any, device: torch.device) -> Diffusion:
    """The process of a configuration, its tables on a device."""
    process: Diffusion = config.process()
    return process.to(device)


def make_loss(settings: DiffusionSettings, process: Diffusion) -> DiffusionLoss:
    """The loss that the settings name; UsageError where it would not teach the model's variance, or where it has none.

    By default the squared error, with the bound where the variance is learned.
    """
    most, learned = len(process.schedule), process.variance.learned
    name = settings.loss or ("hybrid" if learned else "simple")
    if (name == "simple") == learned and name != "bound":
        which = "a variance that is learned" if learned else "a fixed variance"
        raise UsageError(f"setting 'diffusion.loss': {name} is not for {which}; leave it open, or use bound")
    losses = {"simple": SimpleLoss(), "hybrid": HybridLoss(most / 1000), "bound": BoundLoss(most)}
    return losses[name]


class DiffusionObjective:
    """One loss of the whole model, which is `learner.model`: a step is drawn for every image, and noise."""

    curves = (
        Curve("Loss", "loss", "as trained", falling=True),
        Curve("Squared error", "squared_error", "of what is predicted", falling=True),
        Curve("Bound", "bits_per_dimension", "bits per dimension", falling=True),
    )
    logged = ("squared_error", "bound", "bits_per_dimension")
    memory: Mapping[str, Tensor] = {}

    def __init__(self, loss: DiffusionLoss):
        self.loss = loss

    @property
    def phases(self) -> tuple[Phase, ...]:
        return one_phase(self.draw_and_compare)

    def describe(self) -> str:
        return self.loss.words

    def optimizer_settings(self, name: str, common: OptimizerSettings) -> OptimizerSettings:
        return common

    def draw_and_compare(self, learner: Any, batch: ImageBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss at steps that are drawn evenly, and its parts."""
        model, x0 = learner.model, batch.images
        process = process_of(model.config, x0.device)
        t = torch.randint(len(process.schedule), (len(x0),), device=x0.device)
        noise = torch.randn_like(x0)
        x_t = process.schedule.add_noise(x0, noise, t)
        output = predictor(model, batch.labels)(x_t, process.schedule.timesteps[t].float())
        parts = self.loss(process, output, x0, noise, x_t, t)
        loss = parts.pop("loss").mean()
        return loss, {name: values.detach().mean() for name, values in parts.items()}


def make_objective(settings: Settings, model: Any) -> DiffusionObjective:
    return DiffusionObjective(make_loss(settings.diffusion, model.config.process()))


def predictor(model: Any, labels: Tensor) -> Predict:
    """The model as a function of noisy images and timesteps; `labels` (B,) are used where it has classes."""
    return (lambda x, timesteps: model(x, timesteps, labels)) if getattr(model.config, "classes", 0) else model


@torch.no_grad()
def measure(model: Any, batches: Iterable[ImageBatch]) -> dict[str, float]:
    """`squared_error` of what is predicted, and `bits_per_dimension`, an estimate of the variational bound.

    Every image is looked at twice, each time at one step: for the error at steps that are spread evenly; for the bound
    at steps that are the likelier the earlier they are, as its terms fall, each weighted by one over its probability.
    """
    errors, bits, seen = [], [], 0
    for batch in batches:
        x0 = batch.images
        process, predict = process_of(model.config, x0.device), predictor(model, batch.labels)
        most = len(process.schedule)
        noise = ImageNoise(SEED, batch.indices.tolist(), tuple(x0.shape[1:]), x0.device)
        places = torch.arange(seen, seen + len(x0), dtype=torch.float64, device=x0.device) * GOLDEN_RATIO % 1
        seen += len(x0)
        t = (places * most).long()
        drawn = noise()
        found, x_t = look(process, predict, x0, drawn, t)
        errors.append(squared_error(process, found, x0, drawn, x_t, t))
        probabilities = 1 / torch.arange(1, most + 1, device=x0.device, dtype=torch.float64)
        probabilities /= probabilities.sum()
        t = torch.searchsorted(probabilities.cumsum(0), places).clamp(max=most - 1)
        found, x_t = look(process, predict, x0, noise(), t)
        term = bound_terms(process, found, x0, x_t, t)
        bits.append(prior_term(process.schedule, x0) + term / probabilities[t])
    return {"squared_error": torch.cat(errors).mean().item(), "bits_per_dimension": torch.cat(bits).mean().item()}


def look(process: Diffusion, predict: Predict, x0: Tensor, noise: Tensor, t: Tensor) -> tuple[Denoised, Tensor]:
    """What the model sees in images with noise at the steps t (B,), and these noisy images."""
    x_t = process.schedule.add_noise(x0, noise, t)
    return process.denoise(predict(x_t, process.schedule.timesteps[t].float()), x_t, t, clip=True), x_t


def steps(model: Any, options: Options) -> int:
    """Those of the options, or 50; UsageError for more than the process has, and for an eta that nothing uses."""
    check_options(model, options)
    most: int = model.config.timesteps
    if options.steps is not None and options.steps > most:
        raise UsageError(f"option 'steps' is {options.steps}, expected at most {most}, those of this model's process")
    if options.eta is not None and options.sampler == "ddpm":
        raise UsageError("option 'eta' is for the ddim sampler; the ddpm sampler takes its noise from the process")
    return options.steps or min(STEPS, most)


def generate(
    model: Any, seed: int, numbers: Sequence[int], options: Options, labels: Sequence[int] = ()
) -> Iterator[Tensor]:
    """Images in the making, (N, C, H, W) after every step; the last of them are done.

    Image n of a seed is the same whatever is made beside it; where the model has classes and `labels` name none, it is
    of class n modulo their number.
    """
    config, device = model.config, next(model.parameters()).device
    kept = spaced_steps(config.timesteps, [steps(model, options)])
    process = process_of(config, device).keep(kept)
    sampler: Sampler = Ancestral() if options.sampler == "ddpm" else DDIM(options.eta or 0.0)
    noise = ImageNoise(seed, numbers, (config.in_channels, config.image_size, config.image_size), device)
    wanted = torch.tensor(labels or numbers, device=device) % max(getattr(config, "classes", 0), 1)
    return sample(process, predictor(model, wanted), noise, sampler, clip=True)
