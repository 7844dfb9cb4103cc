"""Networks for phones and those found by search: what parameter counts and small references cannot show."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from orchard.cards import all_cards, sizes
from orchard.errors import UsageError
from orchard.models import create_model, landmark_of
from orchard.models.vision.nasnet_cells import Pool
from orchard.nn.channel_shuffle import channel_shuffle
from orchard.nn.conv_norm import SameConv2d, conv_norm, initialise_by_fan_out, round_width
from orchard.weights.golden import GOLDEN, read_golden
from orchard.weights.official import export_official, load_official, read_official
from orchard.weights.reference import randomise

MOBILE = "mobilenetv2_nano", "mnasnet_nano", "efficientnet_nano"


def grown(name, **overrides):
    """A variant with every weight drawn at random, in evaluation mode."""
    torch.manual_seed(0)
    model = create_model(name, **overrides).eval()
    images = landmark_of(name).example(model.config, 1, torch.Generator().manual_seed(1))
    with torch.no_grad():
        randomise(model, lambda: model(**images), seed=0)
    return model


# Padding, widths, starts


def test_widths_are_rounded_to_eights_and_lose_no_more_than_a_tenth():
    assert [round_width(width) for width in (1, 11.2, 11.5, 12, 20, 44.8, 1280)] == [8, 16, 16, 16, 24, 48, 1280]
    assert all(round_width(n / 4) % 8 == 0 and round_width(n / 4) >= 0.9 * n / 4 for n in range(32, 4000))


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_same_padding_puts_what_is_odd_at_the_far_end(kernel, side):
    same = SameConv2d(2, 2, kernel, stride=2, groups=2)
    x = torch.randn(1, 2, side, side)
    total = (-(-side // 2) - 1) * 2 + kernel - side
    padded = F.pad(x, (total // 2, total - total // 2) * 2)
    torch.testing.assert_close(same(x), F.conv2d(padded, same.weight, stride=2, groups=2))
    plain = conv_norm(2, 2, kernel, stride=2, groups=2, norm=nn.BatchNorm2d)[0]
    plain.load_state_dict(same.state_dict())
    assert torch.allclose(plain(x), same(x), atol=1e-6) == (side % 2 == 1)  # the trap that counts do not show


@pytest.mark.parametrize("side", [1, 2, 5, 6])
@pytest.mark.parametrize("stride", [1, 2])
def test_pools_of_nasnet_see_no_padding(side, stride):
    x = torch.randn(2, 3, side, side + 1)
    means, largest = Pool("average", stride)(x), Pool("maximum", stride)(x)
    assert means.shape == largest.shape == (2, 3, -(-side // stride), -(-(side + 1) // stride))

    def window(index, length):
        begin = stride * index - max((-(-length // stride) - 1) * stride + 3 - length, 0) // 2
        return slice(max(begin, 0), begin + 3)

    for i, j in np.ndindex(*means.shape[2:]):
        seen = x[:, :, window(i, side), window(j, side + 1)]
        torch.testing.assert_close(means[:, :, i, j], seen.mean((2, 3)))
        assert torch.equal(largest[:, :, i, j], seen.amax((2, 3)))


def test_a_depthwise_convolution_starts_by_its_own_fan_out():
    layers = nn.ModuleList([nn.Conv2d(512, 512, 3, groups=512), nn.Conv2d(64, 256, 1)])
    initialise_by_fan_out(layers)
    for layer, fan_out in zip(layers, (9, 256), strict=True):
        assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
        assert not layer.bias.any()


# Sizes


@pytest.mark.parametrize(
    "name, millions",
    [  # multiply-adds that the authors' pages give
        *[("mobilenetv1_025", 41), ("mobilenetv1_050", 150), ("mobilenetv1_100", 569)],
        *[("mobilenetv2_035", 59), ("mobilenetv2_050", 97), ("mobilenetv2_075", 209), ("mobilenetv2_100", 300)],
        *[("mobilenetv2_130", 509), ("mobilenetv2_140", 582), ("nasnetamobile", 564), ("nasnetalarge", 23_800)],
        *[("shufflenet_v1_x2_0_g3", 524), ("shufflenet_v1_x2_0_g8", 522), ("shufflenet_v1_x1_5_g3", 292)],
        *[("shufflenet_v1_x1_5_g8", 290), ("shufflenet_v1_x1_0_g8", 138), ("shufflenet_v1_x0_5_g3", 38)],
        *[("shufflenet_v1_x0_5_g8", 40), ("shufflenet_v1_x1_0_g3", 138)],
    ],
)
def test_multiply_adds_are_the_published(name, millions):
    assert sizes()[name]["macs"] / 1e6 == pytest.approx(millions, rel=0.012)


@pytest.mark.parametrize(
    "size, millions",
    [  # the authors' README
        *[("x2_0_g3", 5.4), ("x2_0_g8", 6.5), ("x1_5_g3", 3.4), ("x1_5_g8", 4.3)],
        *[("x1_0_g3", 1.9), ("x1_0_g8", 2.4), ("x0_5_g3", 0.7), ("x0_5_g8", 1.0)],
    ],
)
def test_shufflenet_has_the_parameters_of_its_authors(size, millions):
    assert round(sizes()[f"shufflenet_v1_{size}"]["parameters"] / 1e6, 1) == millions


# ShuffleNet


def test_the_shuffle_deals_the_groups_out_in_turn():
    x = torch.arange(12.0).view(1, 12, 1, 1)
    assert channel_shuffle(x, 3).flatten().tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert torch.equal(channel_shuffle(channel_shuffle(x, 3), 4), x)


def test_shufflenet_v1_by_hand():
    """Figure 2: grouped products as block matrices, the shuffle as a permutation, the line's means by windows."""
    model = grown("shufflenet_v1_nano")
    images = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(3))

    def normed(x, norm):
        gain = norm.weight.double() / (norm.running_var.double() + 1e-5).sqrt()
        return (x - norm.running_mean.double()[:, None, None]) * gain[:, None, None] + norm.bias.double()[:, None, None]

    def pointwise(x, layer, groups):
        weight = layer[0].weight.double()[:, :, 0, 0]
        matrix = torch.block_diag(*weight.chunk(groups))
        return normed(torch.einsum("oi,ihw->ohw", matrix, x), layer[1])

    def windows(x, stride):
        """3x3 neighbourhoods, zero outside, and how many of each are inside or padding: (C, 9, h, w)."""
        padded = F.pad(x, (1, 1, 1, 1))
        h, w = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
        rows = [padded[:, i : i + stride * h : stride, j : j + stride * w : stride] for i, j in np.ndindex(3, 3)]
        return torch.stack(rows, 1)

    with torch.no_grad():
        kernel = model.stem[0].weight.double()[:, 0].flatten(1)
        stem = torch.einsum("ok,khw->ohw", kernel, windows(images[0].double(), 2)[0])
        x = normed(stem, model.stem[1]).clamp(min=0)
        for s, stage in enumerate(model.stages):
            for i, unit in enumerate(stage):
                stride = 2 if i == 0 else 1
                inside = pointwise(x, unit.reduce, 1 if (s, i) == (0, 0) else 3).clamp(min=0)
                kernels = unit.depthwise[0].weight.double()[:, 0].flatten(1)
                inside = normed(torch.einsum("ck,ckhw->chw", kernels, windows(inside, stride)), unit.depthwise[1])
                members = len(inside) // 3  # group j takes channels j, 3 + j, 6 + j, ... of what comes in
                dealt = inside[[member * 3 + group for group in range(3) for member in range(members)]]
                out = pointwise(dealt, unit.expand, 3)
                x = torch.cat([windows(x, 2).mean(1), out]) if stride == 2 else x + out
                x = x.clamp(min=0)
        expected = model.head.weight.double() @ x.mean((1, 2))
        torch.testing.assert_close(model(images)[0].double(), expected, atol=1e-5, rtol=1e-5)


def test_the_authors_shufflenet_sees_blue_first():
    model = grown("shufflenet_v1_x0_25_g3", image_size=64)
    theirs = export_official(model, "megvii")
    assert torch.equal(theirs["first_conv.0.weight"][:, 0], model.stem[0].weight[:, 2])
    assert "features.15.branch_main_2.1.running_var" in theirs and theirs["classifier.0.weight"].shape == (1000, 240)
    official = read_official("shufflenet_v1_x0_25_g3", theirs, "megvii", {})
    assert official.about.preprocess["std"] == pytest.approx((1 / 255,) * 3)


# Feature maps


@pytest.mark.parametrize("name", ["mobilenetv2_050", "semnasnet_050"])
def test_feature_maps_are_those_of_timm(name):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = create_model(name, image_size=64).eval()
    theirs = timm.create_model(name, pretrained=False, features_only=True).eval()
    found = theirs.load_state_dict(export_official(model, "timm"), strict=False)  # it has no classifier
    assert not found.missing_keys
    assert tuple(theirs.feature_info.reduction()) == model.strides
    assert tuple(theirs.feature_info.channels()) == model.channels
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, map_ in zip(model.feature_maps(images), theirs(images), strict=True):
            torch.testing.assert_close(ours, map_, atol=1e-5, rtol=1e-5)


def test_squeezenet_has_a_map_of_each_size():
    expected = {"squeezenet1_0": ((96, 256, 512, 512), 21), "squeezenet1_1": ((64, 128, 256, 512), 17)}
    for name, (channels, least) in expected.items():
        with torch.device("meta"):
            model = create_model(name)
            assert [one.shape[1] for one in model.feature_maps(torch.empty(1, 3, 224, 224))] == list(channels)
            assert model.features(torch.empty(1, 3, 224, 224)).shape[2:] == (13, 13)
            assert model(torch.empty(1, 3, least, least)).shape == (1, 1000)
        with pytest.raises(UsageError, match=f"image_size is at least {least}"):
            create_model(name, image_size=least - 1)


# Inverted residuals


def test_gates_have_a_quarter_of_what_enters_the_block():
    with torch.device("meta"):
        model = create_model("efficientnet_b0")
    inputs = [32, 16, 24, 24, 40, 40]
    blocks = [block for stage in model.stages for block in stage]
    assert [block.squeeze.fc1.out_channels for block in blocks[:6]] == [n // 4 for n in inputs]
    assert [len(stage) for stage in model.stages] == [1, 2, 2, 3, 3, 4, 1]
    rates = [block.drop_path.p for block in blocks]
    assert rates == pytest.approx([0.2 * n / 16 for n in range(16)])


@pytest.mark.parametrize("name", MOBILE)
def test_a_block_whose_last_norm_is_zero_is_a_line(name):
    model = create_model(name).eval()
    lines = [block for stage in model.stages for block in stage if block.residual]
    assert lines
    for block in lines:
        nn.init.zeros_(block.project[1].weight)
        x = torch.randn(1, block.project[1].num_features, 5, 5)
        assert torch.equal(block(x), x)  # below zero too: nothing stands on the line


def test_weights_bring_the_padding_and_epsilon_they_were_trained_with():
    def read(name, source, **overrides):
        theirs = export_official(create_model(name, **overrides), source)
        return read_official(name, theirs, source, overrides).model.config

    small = dict(widths=(8, 8), depths=(1, 1), strides=(1, 2), kernels=(3, 3))
    google = read("tf_efficientnet_b0", "timm", **small)
    assert google.same_padding and google.norm_eps == 1e-3
    assert read("efficientnet_b5", "torchvision", **small).norm_eps == 1e-3
    assert read("efficientnet_b5", "timm", **small).norm_eps == 1e-5
    torchvision = read("tf_efficientnet_b0", "torchvision", **small)
    assert not torchvision.same_padding and torchvision.norm_eps == 1e-5
    for name in ("mobilenetv1_nano", "mobilenetv2_nano"):
        config = read(name, "hf")
        assert config.same_padding and config.norm_eps == 1e-3 and not create_model(name).config.same_padding


# NASNet


@pytest.mark.parametrize("name", ["nasnetamobile", pytest.param("nasnetalarge", marks=pytest.mark.slow)])
def test_nasnet_has_the_cells_of_its_name(name):
    with torch.device("meta"):
        model = create_model(name)
        maps = model.feature_maps(torch.empty(1, 3, model.config.image_size, model.config.image_size))
    cells, last = {"nasnetamobile": (4, 1056), "nasnetalarge": (6, 4032)}[name]
    assert [len(stage) for stage in model.stages] == [cells] * 3 and model.channels[-1] == last
    assert [one.shape[2] for one in maps] == ([111, 56, 28, 14, 7] if cells == 4 else [165, 83, 42, 21, 11])


@pytest.mark.slow
def test_nasnet_large_gives_the_tensors_of_cadene_s_port():
    """At 331 pixels, where two of the reductions have even sides, and with Google's padding of means."""
    case = read_golden(GOLDEN / "cnn_zoo" / "nasnetalarge")
    model = create_model("nasnetalarge").eval()
    load_official(model, case.state, "timm")
    with torch.no_grad():
        maps = model.feature_maps(case.given("images"))
        logits = model.head(maps[-1].mean((2, 3)))
    torch.testing.assert_close(maps[0].mean((2, 3)), case.computed("channel_mean.conv0"), atol=1e-5, rtol=1e-4)
    expected = case.computed("logits")
    assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_every_card_of_these_names_its_own_variants():
    for name in ("squeezenet", "mobilenetv1", "mobilenetv2", "shufflenetv1", "shufflenetv2", "mnasnet", "efficientnet"):
        assert set(landmark_of(next(iter(all_cards()[name].variants))).variants) == set(all_cards()[name].variants)
