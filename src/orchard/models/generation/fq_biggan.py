"""FQ-BigGAN: BigGAN whose discriminator knows features by the codes of a dictionary.

Zhao, Li, Yu, Gao, Chen 2020, Feature Quantization Improves GAN Training (arXiv:2004.02088). The networks are BigGAN's;
after some blocks of the discriminator, every position of a map takes the nearest code (`nn/feature_quantizer.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from orchard.models import Landmark
from orchard.models.generation import biggan
from orchard.models.generation.biggan import BigGAN, BigGANConfig
from orchard.models.generation.conditional_blocks import ajbrock_names
from orchard.models.generation.pair import example_noise_and_labels


def narrow(*multiples: int) -> tuple[int, ...]:
    """Channels in units of 64."""
    return tuple(64 * multiple for multiple in multiples)


class FQBigGAN(BigGAN):
    """Noise (B, noise) and labels (B,) to images (B, C, S, S) in [-1, 1], and images with labels to scores (B,)."""


VARIANTS = {
    "fq_biggan128": BigGANConfig(
        narrow(16, 16, 8, 4, 2, 1), (3,), narrow(1, 2, 4, 8, 16, 16), (0,), halvings=5, quantize=(0, 1, 2, 3),
        commitment=15.0,
    ),
    "fq_biggan_nano": replace(biggan.VARIANTS["biggan_nano"], quantize=(1,), codes=256, commitment=0.5),
}  # fmt: skip


def infer_config(config: Any, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """How many classes, how much noise and how many codes a checkpoint has."""
    found = biggan.infer_config(config, source, lookup)
    for n in config.quantize[:1]:
        codebook = lookup(f"discriminator.quantizers.{n}.codebook")
        if codebook is not None:
            found["codes"] = len(codebook)
    return found


LANDMARK = Landmark(
    model=FQBigGAN,
    variants=VARIANTS,
    names={"fq-gan": ajbrock_names},
    infer_config=infer_config,
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0}},
    example=example_noise_and_labels,
)
