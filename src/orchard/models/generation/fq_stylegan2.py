"""FQ-StyleGAN2: StyleGAN2 whose discriminator knows features by the codes of a dictionary.

Zhao, Li, Yu, Gao, Chen 2020, Feature Quantization Improves GAN Training (arXiv:2004.02088). The networks are
StyleGAN2's; after some blocks of the discriminator, every position of a map takes the nearest code
(`nn/feature_quantizer.py`).
"""

from __future__ import annotations

from dataclasses import replace

from orchard.models import Landmark
from orchard.models.generation import stylegan2
from orchard.models.generation.pair import example_noise
from orchard.models.generation.stylegan2 import StyleGAN2


class FQStyleGAN2(StyleGAN2):
    """Noise (B, D) to images (B, C, S, S), and images to scores (B,); between noise and image, styles (B, L, D)."""


VARIANTS = {
    "fq_stylegan2_nano": replace(stylegan2.VARIANTS["stylegan2_nano"], quantize=(0,), codes=128, commitment=0.25),
}

LANDMARK = Landmark(
    model=FQStyleGAN2,
    variants=VARIANTS,
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0}},
    example=example_noise,
)
