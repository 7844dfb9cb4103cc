"""The names of U-GAT-IT's official checkpoints, and what they say of a configuration."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from orchard.models import Rule

HALVINGS = 2  # of a generator
# What official code calls the networks, all of which are in one file.
FILES = {
    "generators.AtoB.": "genA2B.", "generators.BtoA.": "genB2A.",
    "discriminators.A.global.": "disGA.", "discriminators.B.global.": "disGB.",
    "discriminators.A.local.": "disLA.", "discriminators.B.local.": "disLB.",
}  # fmt: skip


def znxlwm_names(config: Any) -> list[Rule | tuple[str, str]]:
    """The names of znxlwm/UGATIT-pytorch, whose files hold a state dict of each network."""
    rows: list[Rule | tuple[str, str]] = []
    for ours, theirs in FILES.items():
        attention = [(f"{ours}attention.{one}.", f"{theirs}{other}.")
                     for one, other in (("mean", "gap_fc"), ("maximum", "gmp_fc"), ("mix", "conv1x1"))]  # fmt: skip
        if ours.startswith("generators"):
            rows += _generator_rows(config.blocks, ours, theirs) + [(f"{a}{{}}", f"{b}{{}}") for a, b in attention]
            continue
        spectral = [*attention[:2], (f"{ours}score.", f"{theirs}conv.")]
        for n in range((config.global_layers if "global" in ours else config.local_layers) - 1):
            spectral.append((f"{ours}convs.{n}.", f"{theirs}model.{3 * n + 1}."))
            rows.append((f"{ours}convs.{n}.bias", f"{theirs}model.{3 * n + 1}.bias"))
        rows.append((f"{attention[2][0]}{{}}", f"{attention[2][1]}{{}}"))
        rows += [(f"{a}{leaf}", f"{b}weight_{other}") for a, b in spectral
                 for leaf, other in (("weight", "orig"), ("u", "u"), ("v", "v"))]  # fmt: skip
        rows.append((f"{ours}quantizers.{{}}", f"{theirs}quantizers.{{}}"))  # official files have none
    return rows


def _generator_rows(blocks: int, ours: str, theirs: str) -> list[Rule | tuple[str, str]]:
    """Those of a generator but for its attention. Norms without weights, paddings and ReLUs count in a sequence too."""
    places = {
        **{f"down.{n}": f"DownBlock.{4 * n + 1}" for n in range(HALVINGS + 1)},
        **{f"blocks.{n}.conv{m}": f"DownBlock.{4 * HALVINGS + 4 + n}.conv_block.{1 if m == 1 else 5}"
           for n in range(blocks) for m in (1, 2)},
        **{f"adaptive.{n}.{part}": f"UpBlock1_{n + 1}.{part}"
           for n in range(blocks) for part in ("conv1", "conv2", "norm1", "norm2")},
        **{f"up.{n}": f"UpBlock2.{5 * n + 2}" for n in range(HALVINGS)},
        "tail": f"UpBlock2.{5 * HALVINGS + 1}",
        "style.0": "FC.0", "style.1": "FC.2", "gain": "gamma", "bias": "beta",
    }  # fmt: skip
    rows: list[Rule | tuple[str, str]] = [(f"{ours}{a}.{{}}", f"{theirs}{b}.{{}}") for a, b in places.items()]
    return rows + [
        (f"{ours}up_norms.{n}.{leaf}", f"{theirs}UpBlock2.{5 * n + 3}.{other}")
        for n in range(HALVINGS) for leaf, other in (("rho", "rho"), ("gain", "gamma"), ("bias", "beta"))
    ]  # fmt: skip


def infer_config(config: Any, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """Widths, channels and form, read off the first layers."""
    first, judge = lookup("generators.AtoB.down.0.weight"), lookup("discriminators.B.global.convs.0.weight")
    style = lookup("generators.AtoB.style.0.weight")
    found: dict[str, Any] = {}
    if first is not None and style is not None:
        light = style.shape[0] == style.shape[1]
        found |= {"width": len(first), "in_channels": first.shape[1], "light": light}
        if not light:
            found["image_size"] = 2**HALVINGS * math.isqrt(style.shape[1] // style.shape[0])
    return found if judge is None else {**found, "discriminator_width": len(judge)}
