"""The lambda layer against what two re-implementations computed, and what the battery cannot know of LambdaResNets."""

import pytest
import torch
from torch import nn

from orchard.errors import UsageError
from orchard.models import configuration, create_model
from orchard.models.vision.lambda_resnet import LambdaResNetConfig, make_block
from orchard.nn.lambda_layer import GlobalPositions, LambdaLayer, LocalPositions
from orchard.weights.golden import GOLDEN, read_golden
from orchard.weights.names import to_ours
from orchard.weights.sizes import count_parameters

LAYER = {"atol": 1e-5, "rtol": 1e-4}  # as the stored cases say


def layer(inputs=12, outputs=12, *, scope=None, size=None, bias=False, keys=6, heads=3, depth=1):
    """A layer with everything drawn at random, in evaluation mode, in float64."""
    torch.manual_seed(0)
    if size:
        positions = GlobalPositions(size, keys=keys, depth=depth)
    else:
        positions = LocalPositions(scope, keys=keys, depth=depth, bias=bias)
    made = LambdaLayer(inputs, outputs, positions, keys=keys, heads=heads, depth=depth).double().eval()
    for tensor in [*made.parameters(), *made.buffers()]:
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5) if tensor.ndim == 1 else nn.init.normal_(tensor)
    return made


def check_stored(module, case, compared):
    """Both modes, the gradient of the input and the running statistics that `compared` gives for theirs."""
    x = case.given("x").requires_grad_()
    torch.testing.assert_close(module.eval()(x), case.computed("y_eval"), **LAYER)
    given = module.train()(x)
    torch.testing.assert_close(given, case.computed("y_train"), **LAYER)
    (gradient,) = torch.autograd.grad(given.square().mean(), x)
    torch.testing.assert_close(gradient, case.computed("grad_x_of_mean_y_train_squared"), **LAYER)
    state = module.state_dict()
    for ours, theirs in compared.items():
        torch.testing.assert_close(state[ours], case.computed(f"after_train.{theirs}"), **LAYER)


@pytest.mark.parametrize("name", ["global_n6_u4_h8", "global_n8_u1_h4", "local_r23_u4_h2", "local_r7_u1_h4"])
def test_layers_of_lucidrains(name):
    case = read_golden(GOLDEN / "lambdanetworks" / name)
    args = case.meta["constructor"]["args"]
    shape = {"keys": args["dim_k"], "heads": args["heads"], "depth": args["dim_u"]}
    where = {"size": (args["n"], args["n"])} if "n" in args else {"scope": args["r"], "bias": True}
    module = layer(args["dim"], args["dim_out"], **shape, **where).float()
    state = dict(case.state)
    state["to_qkv.weight"] = torch.cat([state.pop(f"to_{one}.weight") for one in "qkv"])
    if "n" in args:
        state["positions.table"] = state.pop("rel_pos_emb")
    else:
        state["positions.conv.weight"] = state.pop("pos_conv.weight").squeeze(2)  # of a convolution over depth too
        state["positions.conv.bias"] = state.pop("pos_conv.bias")
    module.load_state_dict(state)
    statistics = [f"norm_{one}.running_{what}" for one in "qv" for what in ("mean", "var")]
    check_stored(module, case, dict(zip(statistics, statistics, strict=True)))


BLOCK = [
    ("mixer.norm_q.{}", "conv2.0.queries.1.{}"),
    ("mixer.norm_v.{}", "conv2.0.values.1.{}"),
    ("mixer.positions.conv.weight", "conv2.0.embedding"),
    ("bn2.{}", "conv2.2.{}"),
    ("{}", "{}"),
]


def test_a_block_of_leaderj1001():
    """Its shortcut has a bias in front of a batch norm, which takes it away: ours lowers the running mean by it."""
    case = read_golden(GOLDEN / "lambdanetworks" / "resblock_unofficial")
    module = make_block(LambdaResNetConfig((3, 4, 6, 3)), iter([("0.0", "L", (12, 12))]), 32, 16, 2, 1)
    state = dict(case.state)
    projections = [state.pop(f"conv2.0.{one}.0.weight") for one in ("queries", "keys", "values")]
    state["mixer.to_qkv.weight"] = torch.cat(projections)
    state["conv2.0.embedding"] = state["conv2.0.embedding"].squeeze(2)
    state["shortcut.1.running_mean"] = state["shortcut.1.running_mean"] - state.pop("shortcut.0.bias")
    module.load_state_dict(to_ours(BLOCK, state, module.state_dict()))
    compared = {"bn1.running_var": "bn1.running_var", "bn2.running_mean": "conv2.2.running_mean"}
    check_stored(module, case, compared | {"shortcut.1.running_var": "shortcut.1.running_var"})


@pytest.mark.parametrize("depth", [1, 2])
def test_a_layer_is_the_paper_s_sum(depth):
    """λ_n = Σ_m (softmax(k)_m + e_nm) v_mᵀ, y_n = λ_nᵀ q_n, one query and one position at a time."""
    module = layer(scope=3, depth=depth)
    x = torch.randn(1, 12, 4, 5, dtype=torch.float64)
    sizes = (18, depth * 6, depth * 4)
    q, k, v = module.to_qkv(x).split(sizes, 1)
    q, v = module.norm_q(q)[0].view(3, 6, 4, 5), module.norm_v(v)[0].view(depth, 4, 4, 5)
    k = k[0].view(depth, 6, 20).softmax(-1).view(depth, 6, 4, 5)
    kernel = module.positions.conv.weight  # (keys, depth, 3, 3)
    expected = torch.empty(3, 4, 4, 5, dtype=torch.float64)
    for i in range(4):
        for j in range(5):
            matrix = torch.zeros(6, 4, dtype=torch.float64)
            for a in range(4):
                for b in range(5):
                    for u in range(depth):
                        weight = k[u, :, a, b]
                        if abs(a - i) <= 1 and abs(b - j) <= 1:
                            weight = weight + kernel[:, u, a - i + 1, b - j + 1]
                        matrix += weight[:, None] * v[u, None, :, a, b]
            expected[:, :, i, j] = q[:, :, i, j] @ matrix
    torch.testing.assert_close(module(x)[0], expected.view(12, 4, 5))


def test_a_table_is_a_convolution_as_wide_as_all_distances():
    """Global context on n x n is local context with a scope of 2 n - 1."""
    whole, local = layer(size=(5, 5), depth=2), layer(scope=9, depth=2)
    state = whole.state_dict()
    state["positions.conv.weight"] = state.pop("positions.table").permute(2, 3, 0, 1)
    local.load_state_dict(state)
    x = torch.randn(2, 12, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(whole(x), local(x))


@pytest.mark.parametrize("depth", [1, 4])
def test_values_that_are_not_transposed_mix_depths(depth):
    """leaderj1001 reads values (v, u) as (u, v) for its position lambdas: right for a depth of one only."""
    positions = layer(scope=3, depth=depth).positions
    values = torch.randn(2, depth, 4, 5, 5, dtype=torch.float64)
    as_read_there = values.transpose(1, 2).reshape(values.shape)
    assert torch.equal(positions(as_read_there), positions(values)) == (depth == 1)


def test_odd_maps_fit_the_shortcut_where_timm_s_do_not():
    """timm's 2x2 pool leaves out the last row and column, so that its networks fail at such sizes."""
    theirs = pytest.importorskip("timm.layers.lambda_layer").LambdaLayer(8, stride=2)
    assert theirs(torch.randn(1, 8, 9, 9)).shape[2:] == (4, 4)
    assert nn.Conv2d(8, 8, 1, stride=2)(torch.randn(1, 8, 9, 9)).shape[2:] == (5, 5)
    model = create_model("lambda_resnet_nano", pool="2x2").eval()
    assert [one.shape[2] for one in model.feature_maps(torch.randn(1, 1, 18, 18))] == [18, 9, 5]


def test_a_layer_may_change_the_channels_where_timm_s_fails():
    theirs = pytest.importorskip("timm.layers.lambda_layer").LambdaLayer(16, 32)
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        theirs(torch.randn(1, 16, 8, 8))
    ours = layer(16, 32, scope=9, bias=True, keys=16, heads=4)
    assert ours(torch.randn(1, 16, 8, 8, dtype=torch.float64)).shape == (1, 32, 8, 8)


@pytest.mark.parametrize(
    "overrides, millions",
    [
        ({}, 15.0),  # leaderj1001's README has these as the paper's: keys, heads, depth and scope
        ({"intra_depth": 4, "scope": 7}, 16.0),
        ({"keys": 32}, 15.4),
        ({"keys": 8, "heads": 8, "intra_depth": 8, "scope": 7}, 16.0),
        ({"patterns": ["C", "C", "C", "C"]}, 25.6),  # a ResNet-50
    ],
)
def test_parameters_are_the_paper_s(overrides, millions):
    with torch.device("meta"):
        assert round(count_parameters(create_model("lambda_resnet50", **overrides)) / 1e6, 1) == millions


def test_patterns_say_which_blocks_have_lambdas():
    with torch.device("meta"):
        model = create_model("lambda_resnet50ts")
    letters = ["".join("L" if isinstance(b.mixer, LambdaLayer) else "C" for b in stage) for stage in model.layers]
    assert letters == ["CCC", "CCCL", "CLCLCL", "CLC"]


@pytest.mark.parametrize(
    "overrides, expected",
    [
        ({"patterns": ["C", "L"]}, "patterns has letters C and L for each of 3 stages"),
        ({"patterns": ["C", "X", "L"]}, "patterns has letters C and L"),
        ({"scope": 8}, "scope is odd, got 8"),
        ({"heads": 3}, "heads divides all widths"),
        ({"context": "masked"}, "context is one of local, global"),
        ({"dilated_stages": 1}, "lambda layers are not dilated"),
    ],
)
def test_wrong_settings_are_named(overrides, expected):
    with pytest.raises(UsageError, match=expected):
        configuration("lambda_resnet_nano", **overrides)


def test_a_global_context_is_for_one_size():
    model = create_model("lambda_resnet_nano", context="global").eval()
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 10)
    with pytest.raises(ValueError, match=r"expected pictures of shape \(B, 1, 32, 32\)"):
        model(torch.randn(2, 1, 28, 28))
