"""Models with codes in their noise: how well images say them, and what they come to stand for.

Such a pair offers `codes` (`nn/latent_codes.py`), the last numbers of its noise, and `recognise(images)` → (B, E).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.errors import UsageError
from orchard.inference.generators import generators
from orchard.nn.latent_codes import LatentCodes
from orchard.report.run_page import Curve
from orchard.tasks.unconditional_image_generation.settings import AdversarialSettings

INFORMATION, CLUSTERS = "information", "cluster_accuracy"
CURVES = (
    Curve("Mutual information", INFORMATION, "nats of the codes that images say, at least"),
    Curve("Cluster accuracy", CLUSTERS, "share of real images whose category is that of their class", percent=True),
)
SHOWN = 10  # images of a row of the report, and values of a continuous code
MOST = 2.0  # largest value of a continuous code that is shown; training has those up to 1


def has_codes(model: nn.Module) -> bool:
    return hasattr(model, "codes") and hasattr(model, "recognise")


def check_settings(settings: AdversarialSettings, model: nn.Module) -> None:
    """Raise UsageError where codes shall be learned and the model has none."""
    if settings.information and not has_codes(model):
        raise UsageError(
            f"setting 'adversarial.information': {type(model).__name__} has no codes in its noise; "
            "set adversarial.information=0"
        )


def information(pair: Any, noise: Tensor, images: Tensor) -> Tensor:
    """At least so much information have images of the codes in their noise (B, D): a scalar, in nats."""
    codes: LatentCodes = pair.codes
    return codes.information(noise[:, -codes.width :], pair.recognise(images))


def values_of(words: str, codes: LatentCodes) -> Tensor:
    """The codes (E,) that `words` have, as `7,0.5,-1`; UsageError for others than the model's."""
    try:
        values = [float(word) for word in words.split(",")]
        numbers, left = [int(value) for value in values[: len(codes.categories)]], values[len(codes.categories) :]
        if numbers != values[: len(codes.categories)] or len(left) != codes.continuous:
            raise ValueError
        if min(numbers, default=0) < 0:
            raise ValueError
        rows = [torch.eye(count)[number] for number, count in zip(numbers, codes.categories, strict=True)]
        found = torch.cat([*rows, torch.tensor(left)])
        if not found.isfinite().all():
            raise ValueError
    except (ValueError, IndexError, OverflowError):
        kinds = [f"a category from 0 to {count - 1}" for count in codes.categories]
        kinds += [f"{codes.continuous} number{'' if codes.continuous == 1 else 's'}"] if codes.continuous else []
        raise UsageError(f"option 'codes' is '{words}'; this model has {', then '.join(kinds)}") from None
    return found


@torch.no_grad()
def measure(model: Any, batches: Iterable[ImageBatch]) -> dict[str, float]:
    """`cluster_accuracy` of real images by the first categorical code; nothing of images of one class."""
    if not has_codes(model) or not model.codes.categories:
        return {}
    found, labels = [], []
    for batch in batches:
        found.append(model.codes.split(model.recognise(batch.images))[0][0].argmax(1).cpu())
        labels.append(batch.labels.cpu())
    classes = torch.cat(labels)
    return {CLUSTERS: cluster_accuracy(torch.cat(found), classes)} if (classes != classes[0]).any() else {}


def cluster_accuracy(clusters: Tensor, labels: Tensor) -> float:
    """The share of samples whose cluster stands for their class, both (N,) int64.

    Each cluster stands for one class and no two for the same, so that the share is the largest.
    """
    size = int(max(clusters.max(), labels.max())) + 1
    counts = torch.bincount(clusters * size + labels, minlength=size**2).view(size, size)
    rows, columns = linear_sum_assignment(counts.numpy(), maximize=True)
    return float(counts[rows, columns].sum() / len(labels))


@torch.no_grad()
def pictured(model: Any, seed: int = 0) -> list[tuple[str, Tensor]]:
    """For each code its title and images (V, SHOWN, C, H, W) of the model's scale: a row for a value of the code, a
    column for the rest of the noise."""
    codes, device = cast(LatentCodes, model.codes), next(model.parameters()).device
    noise = torch.cat([model.sample_noise(1, generator) for generator in generators(seed, range(SHOWN))]).to(device)
    first = noise.shape[1] - codes.width
    rows: list[tuple[str, slice, Tensor]] = []
    for number, count in enumerate(codes.categories, 1):
        rows.append((f"category {number}", slice(first, first + count), torch.eye(count, device=device)))
        first += count
    line = torch.linspace(-MOST, MOST, SHOWN, device=device)[:, None]
    for number in range(codes.continuous):
        rows.append((f"number {number + 1}", slice(first + number, first + number + 1), line))
    shown = []
    for title, columns, values in rows:
        changed = noise.repeat(len(values), 1)
        changed[:, columns] = values.repeat_interleave(SHOWN, 0)
        shown.append((title, model.generate(changed).unflatten(0, (len(values), SHOWN))))
    return shown
