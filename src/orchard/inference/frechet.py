"""How far apart two sets of images are, real and generated, in the features of one fixed network.

`frechet_distance` is FID's formula. It is biased upwards: two sets of n and m samples of one normal distribution, whose
covariance has the eigenvalues λ, are about

    (1/n + 1/m) (tr Σ + ½ Σᵢⱼ λᵢ λⱼ (1 + δᵢⱼ) / (λᵢ + λⱼ))

apart. In D equal directions that is λ D (D + 5) / 4 (1/n + 1/m): it grows with the square of the features' number, and
below a few times D samples the formula measures little else. So distances compare only at equal counts, and beside the
distance of generated images belongs that of as many real ones. `kernel_distance` has no such bias, and more noise.
Neither says whether images are poor or all alike: `neighbourhoods` does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class Moments:
    """Number, mean and covariance of features that come batch by batch, in float64; memory does not grow with them.

    Batches are merged by the update of Chan et al. 1979 (STAN-CS-79-773), which takes no large sum from another.
    """

    def __init__(self, features: int):
        self.count = 0
        self.mean = torch.zeros(features, dtype=torch.float64)  # (D,)
        self.scatter = torch.zeros(features, features, dtype=torch.float64)  # (D, D), of deviations from the mean

    def add(self, features: Tensor) -> None:
        """(N, D) of the next samples."""
        features = features.double()
        mean = features.mean(0)
        apart, count = mean - self.mean, self.count + len(features)
        self.scatter += (features - mean).T @ (features - mean)
        self.scatter += torch.outer(apart, apart) * (self.count * len(features) / count)
        self.mean += apart * (len(features) / count)
        self.count = count

    @property
    def covariance(self) -> Tensor:
        """(D, D), with the divisor N - 1."""
        if self.count < 2:
            raise ValueError(f"expected features of two samples or more, got {self.count}")
        return self.scatter / (self.count - 1)


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """The squared Fréchet distance of two normal distributions with the means and covariances of the features.

    `real` (N, D) and `fake` (M, D); ValueError for fewer than two samples. Heusel et al. 2017 (arXiv:1706.08500),
    equation 6, in float64.
    """
    return _distance(*_moments(real), *_moments(fake))


def frechet_distance_of_moments(real: Moments, fake: Moments) -> float:
    """The same of features that came batch by batch."""
    return _distance(real.mean, real.covariance, fake.mean, fake.covariance)


def _distance(mean_a: Tensor, a: Tensor, mean_b: Tensor, b: Tensor) -> float:
    """The trace of √(AB) is that of √(√A B √A), which is symmetric: its eigenvalues are real, and what rounding makes
    negative, where there are fewer samples than features, counts as zero."""
    values, vectors = torch.linalg.eigh(a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    between = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum()
    return float((mean_a - mean_b).square().sum() + a.trace() + b.trace() - 2 * between)


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D), with the divisor N - 1."""
    _check(features)
    features = features.double()
    return features.mean(0), torch.cov(features.T).reshape(features.shape[1], -1)


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """KID: the unbiased squared maximum mean discrepancy of the kernel (x·y / D + 1)³, over all samples.

    Its mean over draws of samples does not depend on their number, and it may be negative. Bińkowski et al. 2018
    (arXiv:1801.01401), section 4.
    """
    for features in (real, fake):
        _check(features)
    real, fake = real.double(), fake.double()

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Tensor) -> Tensor:
        values = kernel(x, x)
        return (values.sum() - values.trace()) / (len(x) * (len(x) - 1))

    return float(within(real) + within(fake) - 2 * kernel(real, fake).mean())


@dataclass(frozen=True)
class Neighbourhoods:
    """Shares of samples among the others'. A sample's neighbourhood reaches to its kth nearest of its own kind.

    A generator that makes good images of few kinds has high precision and low recall and coverage.
    """

    precision: float  # of generated samples, those within a real one's neighbourhood
    recall: float  # of real samples, those within a generated one's
    density: float  # how many real neighbourhoods a generated sample is in, over k; may exceed 1
    coverage: float  # of real samples, those with a generated one in their neighbourhood


def neighbourhoods(real: Tensor, fake: Tensor, k: int) -> Neighbourhoods:
    """What `real` (N, D) and `fake` (M, D) have in common; ValueError unless both have more than k samples.

    Precision and recall: Kynkäänniemi et al. 2019 (arXiv:1904.06991), equation 2; density and coverage: Naeem et al.
    2020 (arXiv:2002.09797), equations 3 and 4. Takes memory for N x M distances.
    """
    for features in (real, fake):
        if len(features) <= k:
            raise ValueError(f"expected more than {k} samples for neighbourhoods of {k}, got {len(features)}")
    real, fake = real.double(), fake.double()
    apart = torch.cdist(real, fake)  # (N, M)
    real_radius, fake_radius = (torch.cdist(x, x).kthvalue(k + 1).values for x in (real, fake))  # 0 to itself is first
    in_real, in_fake = apart < real_radius[:, None], apart < fake_radius
    return Neighbourhoods(
        precision=float(in_real.any(0).double().mean()),
        recall=float(in_fake.any(1).double().mean()),
        density=float(in_real.double().sum(0).mean() / k),
        coverage=float((apart.min(1).values < real_radius).double().mean()),
    )


def _check(features: Tensor) -> None:
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"expected features (N, D) of two samples or more, got {tuple(features.shape)}")
