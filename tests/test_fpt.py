"""The feature pyramid transformer: its parts are the released ones, where those can run, and the paper's, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.errors import OrchardError
from orchard.models import configuration, create_model
from orchard.models.detection.fpt_names import (
    UNUSED,
    grounding_names,
    neck_names,
    rendering_names,
    self_names,
)
from orchard.models.detection.neck import TransformedPyramid
from orchard.nn import non_local
from orchard.nn.feature_pyramid_transformer import FeaturePyramidTransformer
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
from orchard.weights.official import export_official


def fill(module: nn.Module, table: Table, case: Stored, prefix: str = "") -> nn.Module:
    """`module` with all tensors that the released one uses, which come out again as they were."""
    state = {name.removeprefix(prefix): t for name, t in case.state.items() if name.startswith(prefix)}
    state = {
        name: t for name, t in state.items() if not any(unused in f".{name}" for unused in map(".".__add__, UNUSED))
    }
    module.load_state_dict(to_ours(table, state, module.state_dict()))
    back = to_theirs(table, module.state_dict())
    assert back.keys() == state.keys() and all(torch.equal(tensor, state[name]) for name, tensor in back.items())
    return module.eval()


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


# The released parts


@pytest.mark.parametrize(
    ("name", "parts", "pooled"), [("selftrans_mix2", 2, True), ("selftrans_mix4_nopool", 4, False)]
)
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
    """Every part, the whole branches of P2 and P3, the last convolutions of all; P4 and P5 need what fails there."""
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


# The paper's, by hand


def by_hand(queries: Tensor, keys: Tensor, values: Tensor, mix: Tensor) -> Tensor:
    """Section 3.3 for one image, (Q, D), (K, D) and (K, V), pair by pair."""
    parts = len(mix)
    shares = (mix @ keys.mean(0)).softmax(0)
    weights = torch.zeros(len(queries), len(keys))
    for n, (some, others) in enumerate(zip(queries.chunk(parts, 1), keys.chunk(parts, 1), strict=True)):
        weights += shares[n] * torch.stack([-(q - others).square().sum(1) for q in some]).softmax(1)
    return weights @ values


def flat(x: Tensor) -> Tensor:
    return x[0].flatten(1).T


def test_grounding_is_a_mixture_over_squared_distances() -> None:
    torch.manual_seed(0)
    queries, keys, values = torch.randn(1, 8, 5, 7), torch.randn(1, 8, 3, 4), torch.randn(1, 6, 3, 4)
    ours = MixtureOfSoftmaxes(8, 4, negative_squared_distance, mean_of="keys")
    expected = by_hand(flat(queries), flat(keys), flat(values), ours.weight)
    close(flat(ours(queries, keys, values)), expected)


def test_local_grounding_sees_squares_and_zeros_beyond_the_border() -> None:
    torch.manual_seed(0)
    queries, keys, values = torch.randn(1, 8, 4, 5), torch.randn(1, 8, 4, 5), torch.randn(1, 6, 4, 5)
    ours = LocalMixture(8, 2, 3)
    found = ours(queries, keys, values)
    padded = [F.pad(x, (1, 1, 1, 1)) for x in (keys, values)]
    shares = (ours.weight @ keys.mean((0, 2, 3))).softmax(0)
    for row, column in ((0, 0), (2, 3), (3, 4)):
        key, value = (flat(x[:, :, row : row + 3, column : column + 3]) for x in padded)
        weights = torch.zeros(9)
        for n, (q, k) in enumerate(zip(queries[0, :, row, column].chunk(2), key.chunk(2, 1), strict=True)):
            weights += shares[n] * (-(q - k).square().sum(1)).softmax(0)
        close(found[0, :, row, column], weights @ value)
    with pytest.raises(ValueError, match=r"expected levels of one size.*\(4, 5\) and \(2, 2\)"):
        ours(queries, keys[:, :, :2, :2], values[:, :, :2, :2])


@pytest.mark.parametrize("kind", ["distance", "embedded", "concatenate", "local", "stand_alone", "stem"])
def test_memory_is_bounded_and_pieces_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for few pairs at once the answer and all gradients are the same."""
    torch.manual_seed(0)
    ours = make_grounding(kind, 8, parts=2, side=3).eval()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    maps = torch.randn(2, 2, 8, 6, 7).unbind(0)

    def run() -> list[Tensor]:
        y = ours(*maps)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), list(ours.parameters()))]

    whole, largest = run(), []
    monkeypatch.setattr(non_local, "ROOM", 300)
    softmax, relu = Tensor.softmax, F.relu
    monkeypatch.setattr(Tensor, "softmax", lambda x, dim: (largest.append(x[0].numel()), softmax(x, dim))[1])
    monkeypatch.setattr(F, "relu", lambda x: (largest.append(x[0].numel()), relu(x))[1])
    for found, expected in zip(run(), whole, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    # 42 x 42 pairs, or 42 squares of 9 cells in 2 parts or 8 channels; a row of 7 positions is the least
    assert len(largest) > 3 and max(largest) <= (300 if kind in INTERACTIONS or kind == "distance" else 7 * 9 * 8)


def test_a_level_that_is_not_adjacent_is_averaged_first() -> None:
    """The released convolution with a stride of 2 gives sizes that cannot be added: here P5 and P2."""
    torch.manual_seed(0)
    coarse, fine = torch.randn(2, 4, 3, 2), torch.randn(2, 4, 24, 16)
    released, ours = RenderingTransformer(4, 2).eval(), RenderingTransformer(4, 8).eval()
    with pytest.raises(RuntimeError, match="size of tensor"):
        released(coarse, fine)
    released.load_state_dict(ours.state_dict())  # the same weights serve both
    middle = fine.view(2, 4, 6, 4, 4, 4).mean((3, 5))
    assert not torch.equal(ours(coarse, fine), torch.zeros(2, 4, 3, 2))
    close(ours(coarse, fine), released(coarse, middle))


@pytest.mark.parametrize(("sizes", "strides"), [
    ([(23, 31), (12, 16), (6, 8), (3, 4)], (4, 8, 16, 32)), ([(5, 7)] * 3, (8, 8, 8)), ([(9, 5)], (16,)),
])  # fmt: skip
def test_the_pyramid_keeps_its_shapes(sizes: list[tuple[int, int]], strides: tuple[int, ...]) -> None:
    """Odd sizes too, levels of one size, and a single one."""
    torch.manual_seed(0)
    ours = FeaturePyramidTransformer(8, strides, None, self_parts=2, grounding="distance", grounding_parts=4)
    maps = [torch.randn(2, 8, *size) for size in sizes]
    found = ours(maps)
    assert [x.shape for x in found] == [x.shape for x in maps]
    sum(x.square().mean() for x in found).backward()  # type: ignore[union-attr]
    reached = {name for name, p in ours.named_parameters() if p.grad is not None and p.grad.isfinite().all()}
    assert reached == {name for name, _ in ours.named_parameters()}


@pytest.mark.parametrize("trunk", ["resnet_nano", "lambda_resnet_nano", "mobilenetv2_nano"])
def test_detectors_stand_on_it(trunk: str) -> None:
    changes: dict[str, Any] = {"trunk_settings": {}, "in_channels": configuration(trunk).in_channels, "width": 8}
    model: Any = create_model("faster_rcnn_fpt_nano", trunk=trunk, **changes)
    images = torch.randn(2, model.config.in_channels, 45, 33)
    box = torch.tensor([[0.5, 0.5, 0.4, 0.4]])
    losses = model.losses(images, None, [box, box[:0]], [torch.tensor([1]), torch.tensor([], dtype=torch.int64)])
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.pyramid.parameters())
    assert model.eval()(images).proposals.shape[0] == 2
    with pytest.raises(OrchardError, match="no rule for"):
        export_official(model, "torchvision")
