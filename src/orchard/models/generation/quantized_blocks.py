"""Feature quantisation after blocks of a discriminator (FQ-GAN, Zhao et al. 2020, arXiv:2004.02088).

A landmark whose discriminator has blocks takes it up in three places: its configuration inherits `QuantizationConfig`,
its discriminator holds `Quantizers` and asks them after every block, and takes a list of what is heard of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from orchard.nn.feature_quantizer import Behaviour, FeatureQuantizer, QuantizedFeatures


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """None, unless blocks are named."""

    quantize: tuple[int, ...] = ()  # numbers of the discriminator's blocks whose features are quantized
    quantization: Behaviour = "paper"
    codes: int = 1024  # of each dictionary
    code_decay: float = 0.8  # of its moving averages
    commitment: float = 1.0  # weight of its loss


def check_quantization(c: QuantizationConfig, blocks: int) -> None:
    """Raise ValueError for a block that is not there and for a dictionary that cannot be."""
    for n in c.quantize:
        if not 0 <= n < blocks:
            raise ValueError(f"quantize names block {n}, expected 0 to {blocks - 1}")
    if c.quantization not in ("paper", "released"):
        raise ValueError(f"quantization is '{c.quantization}', expected paper or released")
    if c.codes < 2:
        raise ValueError(f"codes is {c.codes}, expected 2 or more")
    if not 0 <= c.code_decay < 1:
        raise ValueError(f"code_decay is {c.code_decay:g}, expected 0 to 1, and less than 1")
    if c.commitment < 0:
        raise ValueError(f"commitment is {c.commitment:g}, expected 0 or more")


class Quantizers(nn.ModuleDict):
    """The dictionaries of a discriminator by the numbers of its blocks, which give maps of `widths` channels."""

    def __init__(self, c: QuantizationConfig, widths: Sequence[int]):
        super().__init__({
            str(n): FeatureQuantizer(
                c.codes, widths[n], decay=c.code_decay, commitment=c.commitment, behaviour=c.quantization
            )
            for n in sorted(set(c.quantize))
        })  # fmt: skip

    def after(self, block: int, x: Tensor, heard: list[QuantizedFeatures] | None) -> Tensor:
        """What goes on of a block's maps; `heard` as for `FeatureQuantizer`."""
        return self[str(block)](x, heard) if str(block) in self else x
