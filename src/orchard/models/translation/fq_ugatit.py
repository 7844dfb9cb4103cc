"""FQ-U-GAT-IT: U-GAT-IT whose global discriminators know features by the codes of dictionaries.

Zhao, Li, Yu, Gao, Chen 2020, Feature Quantization Improves GAN Training (arXiv:2004.02088). The networks are
U-GAT-IT's; after some convolutions of the global discriminators every position of a map takes the nearest code
(`nn/feature_quantizer.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchard.models import Landmark
from orchard.models.translation import ugatit
from orchard.models.translation.contract import example_of_both_sides
from orchard.models.translation.ugatit import UGATIT
from orchard.models.translation.ugatit_names import infer_config, znxlwm_names


class FQUGATIT(UGATIT):
    """Images of A and of B, (B, C, H, W) in [-1, 1], to images of the other side."""


# As the authors' code sets them.
RELEASED: dict[str, Any] = {"quantize": (1, 2, 3), "codes": 128, "code_decay": 0.85, "commitment": 2.0}
VARIANTS = {
    "fq_ugatit": replace(ugatit.VARIANTS["ugatit"], **RELEASED),
    "fq_ugatit_light": replace(ugatit.VARIANTS["ugatit_light"], **RELEASED),
    "fq_ugatit_nano": replace(ugatit.VARIANTS["ugatit_nano"], **{**RELEASED, "codes": 64}),
}  # fmt: skip
LANDMARK = Landmark(
    model=FQUGATIT,
    variants=VARIANTS,
    names={"znxlwm": znxlwm_names},
    infer_config=infer_config,
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 1.0, "interpolation": "bicubic"}},
    example=example_of_both_sides,
)
