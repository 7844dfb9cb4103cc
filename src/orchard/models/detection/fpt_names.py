"""The names of a feature pyramid transformer's tensors in the code that its authors released."""

from __future__ import annotations

from torch import Tensor

from orchard.models import Rule

Table = list[Rule | tuple[str, str]]

# Made by the released layers and used by none of them.
UNUSED = ("conv_cat.", "conv_reduction.", "conv_upsample.")


def self_names(ours: str, theirs: str) -> Table:
    """Of a self-transformer, whose names begin so. Its one projection stands there twice, for queries and for keys."""

    def same(queries: Tensor, keys: Tensor) -> Tensor:
        return queries

    def twice(projection: Tensor) -> tuple[Tensor, Tensor]:
        return projection, projection

    return [
        Rule(f"{ours}project.{{}}", (f"{theirs}conv_qs.{{}}", f"{theirs}conv_ks.{{}}"), same, twice),
        (f"{ours}value.{{}}", f"{theirs}conv_vs.{{}}"),
        (f"{ours}interaction.weight", f"{theirs}attention.weight"),
        (f"{ours}output.{{}}", f"{theirs}conv.{{}}"),
        (f"{ours}norm.{{}}", f"{theirs}norm_layer.{{}}"),
    ]


def grounding_names(ours: str, theirs: str) -> Table:
    return [
        (f"{ours}query.{{}}", f"{theirs}theta.{{}}"),
        (f"{ours}key.{{}}", f"{theirs}phi.{{}}"),
        (f"{ours}value.{{}}", f"{theirs}g.{{}}"),
        (f"{ours}interaction.weigh.{{}}", f"{theirs}W_f.0.{{}}"),
        (f"{ours}output.{{}}", f"{theirs}W_z.{{}}"),
    ]


def rendering_names(ours: str, theirs: str, shrink_norm: str = "bn_reduction") -> Table:
    return [
        (f"{ours}weigh.{{}}", f"{theirs}conv1x1.{{}}"),
        (f"{ours}weigh_norm.{{}}", f"{theirs}bn_low.{{}}"),
        (f"{ours}refine.{{}}", f"{theirs}conv3x3.{{}}"),
        (f"{ours}refine_norm.{{}}", f"{theirs}bn_high.{{}}"),
        (f"{ours}shrink.{{}}", f"{theirs}str_conv3x3.{{}}"),
        (f"{ours}shrink_norm.{{}}", f"{theirs}{shrink_norm}.{{}}"),
    ]


def neck_names(levels: int) -> Table:
    """Of a neck (`models/detection/neck.py`) on so many levels, the finest of which is P2."""
    rows: Table = []
    for n in range(levels):
        level = f"p{n + 2}"
        rows += [
            (f"lateral.{n}.0.{{}}", f"fpn_{level}_1x1.{{}}"),
            (f"transformer.output.{n}.0.{{}}", f"fpt_{level}.{{}}"),
        ]
        rows += self_names(f"transformer.selves.{n}.", f"st_{level}.")
        for other in range(n):
            rows += rendering_names(f"transformer.rendering.{n}_{other}.", f"rt_{level}_p{other + 2}.")
        for other in range(n + 1, levels):
            rows += grounding_names(f"transformer.grounding.{n}_{other}.", f"gt_{level}_p{other + 2}.")
    return rows
