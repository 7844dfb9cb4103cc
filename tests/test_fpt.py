"""The feature pyramid transformer: its parts are the released ones, where those can run, and the paper's, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models.detection.fpt_names import (
    UNUSED,
    grounding_names,
    neck_names,
    rendering_names,
    self_names,
)
from orchard.models.detection.neck import TransformedPyramid
from orchard.nn import non_local
from orchard.nn.grounding_transformer import GroundingTransformer, make_grounding
from orchard.nn.local_interaction import LocalMixture, StandAloneAttention, StemAttention
from orchard.nn.non_local import (
    AveragedConcatenation,
    AveragedDotProduct,
    MixtureOfSoftmaxes,
    dot_product,
    negative_squared_distance,
)
from orchard.nn.rendering_transformer import RenderingTransformer
from orchard.nn.self_transformer import SelfTransformer
from orchard.weights.golden import Stored, read_golden
from orchard.weights.names import Table, to_ours, to_theirs


def fill(module: nn.Module, table: Table, case: Stored, prefix: str = "") -> nn.Module:
    """`module` with all tensors that the released one uses, which come out again as they were."""
    state = {name.removeprefix(prefix): t for name, t in case.state.items() if name.startswith(prefix)}
    state = {name: t for name, t in state.items() if not any(unused in f".{name}" for unused in map(".".__add__, UNUSED))}
    module.load_state_dict(to_ours(table, state, module.state_dict()))
    back = to_theirs(table, module.state_dict())
    assert back.keys() == state.keys() and all(torch.equal(tensor, state[name]) for name, tensor in back.items())
    return module.eval()


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


# The released parts


@pytest.mark.parametrize(("name", "parts", "pooled"), [("selftrans_mix2", 2, True), ("selftrans_mix4_nopool", 4, False)])
def test_self_transformers_are_the_released(golden: Path, name: str, parts: int, pooled: bool) -> None:
    case = read_golden(golden / "fpt" / name)
    ours: Any = fill(SelfTransformer(16, parts=parts, pooled=pooled), self_names("", ""), case)
    close(ours(case.given("x")), case.computed("y"))
    found = {}
    ours.interaction.register_forward_hook(lambda *call: found.update(y=call[2]))
    ours(case.given("x"))
    close(found["y"].flatten(2).transpose(1, 2), case.computed("attention_output"))


INTERACTIONS = {
    "dot": AveragedDotProduct(),
    "embedded": MixtureOfSoftmaxes(12, 1, dot_product, mean_of="keys"),
    "gaussian": MixtureOfSoftmaxes(12, 1, dot_product, mean_of="keys"),
    "concatenate": AveragedConcatenation(12),
}


@pytest.mark.parametrize("mode", INTERACTIONS)
def test_grounding_transformers_are_the_released(golden: Path, mode: str) -> None:
    case = read_golden(golden / "fpt" / "groundtrans")
    ours = GroundingTransformer(12, 12, INTERACTIONS[mode], project=mode != "gaussian")
    fill(ours, grounding_names("", ""), case, f"{mode}.")
    close(ours(case.given("x_low"), case.given("x_high")), case.computed(f"z.{mode}"))


@pytest.mark.parametrize("mode", ["plain", "stem"])
def test_local_attention_is_the_released(golden: Path, mode: str) -> None:
    """It takes both levels laid together: here six channels of each."""
    case = read_golden(golden / "fpt" / "locality_gt")
    rows: Table = [("query.{}", "query_conv.{}"), ("key.{}", "key_conv.{}"), ("value.{}", "value_conv.{}")]
    stored = {name.removeprefix(f"{mode}."): t for name, t in case.state.items() if name.startswith(f"{mode}.")}
    flat = {name: t.flatten(1) if name.startswith("rel") else t for name, t in stored.items()}
    if mode == "plain":
        rows += [("rows", "rel_h"), ("columns", "rel_w")]
        ours: nn.Module = StandAloneAttention(6, 16, 5)
    else:
        rows += [("rows", "emb_a"), ("columns", "emb_b"), ("mix", "emb_mix")]
        ours = StemAttention(6, 16, 5)
    ours.load_state_dict(to_ours(rows, flat, ours.state_dict()))
    close(ours(*case.given("x").chunk(2, 1)), case.computed(mode))


@pytest.mark.parametrize(("mode", "norm"), [("upsample_false", "bn_reduction"), ("upsample_true", "bn_upsample")])
def test_rendering_transformers_are_the_released(golden: Path, mode: str, norm: str) -> None:
    case = read_golden(golden / "fpt" / "rendertrans")
    ours = fill(RenderingTransformer(12, 2), rendering_names("", "", norm), case, f"{mode}.")
    close(ours(case.given("x_high"), case.given("x_low")), case.computed(f"out.{mode}"))


def test_the_neck_is_the_released_as_far_as_that_runs(golden: Path) -> None:
    """Every part, the whole branches of P2 and P3, and the last convolutions of all; P4 and P5 need what fails there."""
    case = read_golden(golden / "fpt" / "neck_parts")
    neck: Any = fill(TransformedPyramid((8, 12, 16, 20), (4, 8, 16, 32), 16, None, "dot"), neck_names(4), case)
    levels, transformer = neck.levels([case.given(f"res{n}") for n in (2, 3, 4, 5)]), neck.transformer
    compared = set()

    def compare(name: str, found: Tensor) -> None:
        close(found, case.computed(name))
        compared.add(f"out.{name}")

    for n, own in enumerate(levels):
        level = f"p{n + 2}"
        compare(f"fpn_{level}", own)
        compare(f"st_{level}", transformer.selves[n](own))
        compare(f"fpt_{level}_of_given_concat", transformer.output[n](case.given(f"cat_{level}")))
        for coarse in range(n + 1, 4):
            compare(f"gt_{level}_p{coarse + 2}", transformer.grounding[f"{n}_{coarse}"](own, levels[coarse]))
        if n:
            compare(f"rt_{level}_p{n + 1}", transformer.rendering[f"{n}_{n - 1}"](own, levels[n - 1]))
    compare("p2_whole_branch", transformer(levels)[0])
    compare("p3_whole_branch", transformer(levels)[1])
    assert compared == {name for name in case.tensors if name.startswith("out.")}
