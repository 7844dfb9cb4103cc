"""What is known of a set of images by a judge's features and logits, gathered batch by batch, and how two sets compare.

FID and the inception score are sums over all images; the other metrics need single samples, of which at most FEW are
kept, at even distances. So memory does not grow with the number of images.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from orchard.cache import cache_folder, drop, is_kept, keep, scratch
from orchard.errors import OrchardError
from orchard.inference.frechet import Moments, frechet_distance_of_moments, kernel_distance, neighbourhoods
from orchard.inference.inception_score import InceptionScore
from orchard.weights.portable import read_tensors, write_tensors

FEW = 5000  # samples that KID, precision, recall, density and coverage are of
SPLITS = 10  # of the inception score, as in its paper
NEIGHBOURS = 5  # the k of precision, recall, density and coverage; of fewer samples, as many as there are others
METRICS = ("fid", "kid", "precision", "recall", "density", "coverage", "spread")
SCORE = ("inception_score", "inception_score_std")  # of a judge that tells classes apart
KIND, KEPT = "judged", 20  # of the cache: its name, and how many samples stay there


class Sample:
    """`total` images in the eyes of a judge."""

    def __init__(self, total: int):
        self.total = total
        self.few = torch.empty(0, 0)  # (min(total, FEW), D) float32
        self.predicted = torch.empty(0, dtype=torch.int64)  # (total,) classes, where the judge gives such
        self.score: InceptionScore | None = None
        self.moments = Moments(0)

    def add(self, features: Tensor, logits: Tensor | None = None) -> None:
        """(N, D) and, of a judge that tells classes apart, (N, K) of the next images."""
        done = self.moments.count
        if not done:
            self.moments, self.few = Moments(features.shape[1]), features.new_empty(0, features.shape[1])
        self.moments.add(features)
        numbers = kept_of(self.total)
        mine = numbers[(numbers >= done) & (numbers < done + len(features))] - done
        self.few = torch.cat([self.few, features[mine]])
        if logits is not None:
            self.score = self.score or InceptionScore(self.total, SPLITS)
            self.score.add(logits)
            self.predicted = torch.cat([self.predicted, logits.argmax(1)])

    @property
    def bias(self) -> str:
        """What a person should know of its Fréchet distances; "" where there are more samples than features."""
        features = len(self.moments.mean)
        if self.total > features:
            return ""
        return (
            f"fid of {self.total:,} samples in {features:,} features is biased upward, as the covariance of so few is "
            f"singular; compare it at equal sample counts only, or take more than {features:,} (generation.samples)"
        )

    def tensors(self) -> dict[str, Tensor]:
        found = {"few": self.few, "mean": self.moments.mean, "scatter": self.moments.scatter}
        if self.score is not None:
            found |= {
                "probabilities": self.score.probabilities,
                "information": self.score.information,
                "predicted": self.predicted,
            }
        return found

    @classmethod
    def of_tensors(cls, total: int, tensors: Mapping[str, Tensor]) -> Sample:
        """The inverse of `tensors`, of a sample that is whole."""
        found = cls(total)
        found.few, found.moments = tensors["few"], Moments(0)
        found.moments.count, found.moments.mean = total, tensors["mean"]
        found.moments.scatter = tensors["scatter"]
        if "predicted" in tensors:
            found.predicted, found.score = tensors["predicted"], InceptionScore(total, SPLITS)
            found.score.seen, found.score.probabilities = total, tensors["probabilities"]
            found.score.information = tensors["information"]
        return found


def kept_of(total: int) -> Tensor:
    """The numbers of the images whose features are kept, (min(total, FEW),) int64, rising."""
    if total <= FEW:
        return torch.arange(total)
    return torch.linspace(0, total - 1, FEW, dtype=torch.float64).round().long()


def sample_of(features: Tensor) -> Sample:
    """Of features (N, D) that are all there."""
    found = Sample(len(features))
    found.add(features)
    return found


def compare(real: Sample, fake: Sample) -> dict[str, float]:
    """The metrics of generated images beside real ones, two of each or more, with their number.

    `spread` is the variance of the generated images' features over that of the real ones', all directions together:
    near 0 they are all alike. The inception score, where the judge allows it, is of the generated ones alone.
    """
    found = {
        "fid": frechet_distance_of_moments(real.moments, fake.moments),
        "kid": kernel_distance(real.few, fake.few),
        **vars(neighbourhoods(real.few, fake.few, min(NEIGHBOURS, len(real.few) - 1, len(fake.few) - 1))),
        "spread": float(fake.moments.covariance.trace() / real.moments.covariance.trace()),
    }
    if fake.score is not None:
        found |= dict(zip(SCORE, fake.score.result(), strict=True))
    return found | {"samples": fake.total}


def remembered(total: int, about: Iterable[str], make: Callable[[], Sample]) -> Sample:
    """The sample of `total` images that `about` describes: from the user's cache, else made now and kept there.

    A cache that cannot be used, or a file in it that is not as it was written, costs time only.
    """
    digest = hashlib.sha256(repr((total, FEW, SPLITS, *about)).encode()).hexdigest()[:32]
    place: Path | None = None
    with contextlib.suppress(OSError, OrchardError, KeyError):
        place = cache_folder(KIND) / f"{digest}.safetensors"
        if is_kept(place):
            found = Sample.of_tensors(total, read_tensors(place))
            os.utime(place)
            return found
    made = make()
    with contextlib.suppress(OSError, OrchardError):
        if place is not None:
            with scratch(place.parent) as folder:
                write_tensors(made.tensors(), folder / place.name)
                keep(folder / place.name, place)
            for old in sorted(place.parent.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
                drop(old)
    return made
