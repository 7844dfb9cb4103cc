"""The names of PolyNet's weights as Cadene converted them from the authors' Caffe files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchard.models.vision.polynet import PolyNetConfig

AROUND = {  # what stands before and between the stages
    "stem.0": "stem.conv1.0",
    "stem.1": "stem.conv1.1",
    "stem.2": "stem.conv1.2",
    "stem.3.1": "stem.conv1_branch",
    "stem.4.0.{}": "stem.conv2_short.{}",
    "stem.4.1.{}": "stem.conv2_long.{}",
    "stem.5.1": "stem.conv2_branch",
    "reductions.0.0.{}": "reduction_a.path0.{}",
    "reductions.0.1": "reduction_a.path1",
    "reductions.1.{}.{}": "reduction_b.path{}.{}",
}
TWO_WAY = (  # the convolutions of one Inception block in stages A, B and C
    {"0.0": "path0.0", "0.1": "path0.1", "0.2": "path0.2", "1.0": "path1.0", "1.1": "path1.1", "2.0": "path2"},
    {"0.0": "path0.0", "0.1": "path0.1", "0.2": "path0.2", "1.0": "path1"},
    {"0.0": "path0.0", "0.1": "path0.1", "0.2": "path0.2", "1.0": "path1"},
)
POLY: tuple[dict[str, str], ...] = (
    {},
    {"0.0": "path0_1x1", "0.1": "path0_1x7", "0.2": "path0_7x1", "1.0": "path1"},
    {"0.0": "path0_1x1", "0.1": "path0_1x3", "0.2": "path0_3x1", "1.0": "path1"},
)


def cadene_names(config: PolyNetConfig) -> list[tuple[str, str]]:
    if config.stem != "valid":
        return []  # no such network was published
    several: dict[str, str] = {}  # convolutions with a norm for each order
    single: dict[str, str] = {}  # and with one
    for stage in (1, 2):
        for i in range(0, config.depths[stage], 2):
            ours, theirs = f"stages.{stage}.{i}.blocks.0", f"stage_{'abc'[stage]}.{i}"
            several |= {f"{ours}.branches.{a}": f"{theirs}.{b}" for a, b in POLY[stage].items()}
            single[f"{ours}.project.{{}}"] = f"{theirs}.conv2d_blocks.{{}}"
    for stage in (0, 1, 2):  # what is left is 2-way
        ours, theirs = f"stages.{stage}.{{}}.blocks.{{}}", f"stage_{'abc'[stage]}.{{}}.blocks.{{}}"
        single |= {f"{ours}.branches.{a}": f"{theirs}.{b}" for a, b in TWO_WAY[stage].items()}
        single[f"{ours}.project.0"] = f"{theirs}.conv2d"
    single |= AROUND
    return [
        *[(f"{ours}.norms.{{}}.{{}}", f"{theirs}.bn_blocks.{{}}.{{}}") for ours, theirs in several.items()],
        *[(f"{ours}.conv.{{}}", f"{theirs}.conv.{{}}") for ours, theirs in several.items()],
        *[(f"{ours}.norms.0.{{}}", f"{theirs}.bn.{{}}") for ours, theirs in single.items()],
        *[(f"{ours}.conv.{{}}", f"{theirs}.conv.{{}}") for ours, theirs in single.items()],
        ("head.{}", "last_linear.{}"),
    ]
