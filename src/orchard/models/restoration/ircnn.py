"""IRCNN: denoising by dilated convolutions (Zhang, Zuo, Gu, Zhang 2017, arXiv:1704.03264, section 3.2).

DnCNN of seven convolutions, dilated by 1, 2, 3, 4, 3, 2 and 1: it sees as far as DnCNN's seventeen. In the paper it is
the prior of half quadratic splitting, with which any linear degradation is undone; it denoises as it is.
"""

from __future__ import annotations

from orchard.models import Landmark
from orchard.models.restoration.dncnn import COLOUR, GREY, DnCNN, DnCNNConfig, example, infer_config, kair_names

DILATIONS = (1, 2, 3, 4, 3, 2, 1)

VARIANTS = {
    "ircnn_nano": DnCNNConfig(GREY, DILATIONS, width=24, norm="none"),
    "ircnn": DnCNNConfig(GREY, DILATIONS, norm="none"),
    "ircnn_color": DnCNNConfig(COLOUR, DILATIONS, norm="none"),
}
LANDMARK = Landmark(
    model=DnCNN, variants=VARIANTS, names={"kair": kair_names}, infer_config=infer_config, example=example
)
