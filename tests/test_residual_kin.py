"""What the battery cannot know of the networks after ResNet: the papers' formulas, computed here by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from orchard.errors import UsageError
from orchard.models import configuration, create_model
from orchard.models.vision.densenet import DenseLayer
from orchard.nn.squeeze_excite import SqueezeExcite
from orchard.weights.reference import randomise


def randomised(name, size=32, **overrides):
    """A variant with every weight and statistic drawn at random, in evaluation mode, and images for it."""
    torch.manual_seed(0)
    model = create_model(name, **overrides).eval()
    images = torch.randn(2, model.config.in_channels, size, size)
    randomise(model, lambda: model(images), seed=0)
    return model, images


@pytest.mark.parametrize(
    "name, depth",
    [
        *[("resnext29_8x64d", 29), ("resnext50_32x4d", 50), ("wide_resnet50_2", 50)],
        *[("densenet121", 121), ("densenet_40_12", 40), ("densenet_bc_100_12", 100)],
    ],
)
def test_layers_are_as_many_as_the_name_says(name, depth):
    with torch.device("meta"):
        model = create_model(name)
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in n]
    assert len(layers) == depth


def test_a_wide_resnet_counts_its_convolutions_with_shortcuts():
    with torch.device("meta"):
        assert sum(isinstance(m, nn.Conv2d) for m in create_model("wrn_28_10").modules()) == 28


def test_a_grouped_bottleneck_is_a_sum_of_paths():
    """Equation 2 and figure 3a of ResNeXt: y = x + Σ T_i(x), each path with its own slices of the three kernels."""
    model, _ = randomised("resnext_nano")
    block = model.layers[1][0]
    x = torch.randn(2, 32, 8, 8)
    width = block.conv2.weight.shape[1]
    a, b = F.relu(block.bn1(block.conv1(x))), []
    for path in range(block.conv2.groups):
        mine = slice(path * width, (path + 1) * width)
        b.append(F.conv2d(a[:, mine], block.conv2.weight[mine], stride=2, padding=1))
    b = F.relu(block.bn2(torch.cat(b, 1)))
    paths = [F.conv2d(b[:, i : i + width], block.conv3.weight[:, i : i + width]) for i in range(0, b.shape[1], width)]
    expected = F.relu(block.bn3(sum(paths)) + block.shortcut(x))
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


def test_squeeze_excite_is_equations_2_to_4():
    part = SqueezeExcite(12, 5, nn.ReLU(), nn.Sigmoid())
    x = torch.randn(3, 12, 4, 6)
    hidden = F.relu(F.linear(x.mean((2, 3)), part.fc1.weight[:, :, 0, 0], part.fc1.bias))
    gate = torch.sigmoid(F.linear(hidden, part.fc2.weight[:, :, 0, 0], part.fc2.bias))
    torch.testing.assert_close(part(x), x * gate[:, :, None, None])


def test_a_gate_weighs_the_branch_and_not_the_shortcut():
    model, _ = randomised("seresnet_nano")
    block = model.layers[0][0]
    nn.init.zeros_(block.gate.fc2.weight)
    nn.init.constant_(block.gate.fc2.bias, -1e4)  # the gates are shut
    x = torch.randn(2, 16, 8, 8).relu()
    assert torch.equal(block(x), x)


def test_legacy_networks_halve_where_caffe_did():
    with torch.device("meta"):
        legacy, today = create_model("legacy_seresnet50"), create_model("seresnet50")
        first = legacy.layers[1][0]
        assert (first.conv1.stride, first.conv2.stride) == ((2, 2), (1, 1))
        assert legacy.pool(torch.empty(1, 64, 112, 112)).shape == today.pool(torch.empty(1, 64, 112, 112)).shape
        assert legacy.pool.padding == 0 and today.pool.padding == 1


def test_wide_resnet_by_hand():
    """Figure 1d and table 1: norm and rectifier first, a projection of the rectified map where the width changes."""
    model, images = randomised("wrn_nano")
    x = F.conv2d(images, model.stem.weight, padding=1)
    for stride, (block,) in zip((1, 2, 2), model.layers, strict=True):
        a = F.relu(block.norm1(x))
        out = F.conv2d(a, block.conv1.weight, stride=stride, padding=1)
        out = F.conv2d(F.relu(block.norm2(out)), block.conv2.weight, padding=1)
        x = out + F.conv2d(a, block.shortcut.weight, stride=stride)
    expected = model.head(F.relu(model.norm(x)).mean((2, 3)))
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["densenet_40_12", "densenet_bc_100_12"])
def test_dense_networks_for_cifar_by_hand(name):
    model, images = randomised(name, depths=(2, 1, 3), size=16)
    x = F.conv2d(images, model.stem.weight, padding=1)
    for stage, block in enumerate(model.blocks):
        if stage:
            t = model.transitions[stage - 1]
            x = F.avg_pool2d(F.conv2d(F.relu(t.norm(x)), t.conv.weight), 2)
        for layer in block:
            new = F.conv2d(F.relu(layer.norm1(x)), layer.conv1.weight, padding=layer.conv1.kernel_size[0] // 2)
            if isinstance(layer, DenseLayer):
                new = F.conv2d(F.relu(layer.norm2(new)), layer.conv2.weight, padding=1)
            x = torch.cat([x, new], 1)
    expected = model.head(F.relu(model.norm(x)).mean((2, 3)))
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)


def test_dropout_of_a_dense_network_follows_every_convolution_but_the_first():
    model = create_model("densenet_bc_100_12", depths=(2, 2, 2), dropout=0.5)
    calls = []
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda module, inputs, output: calls.append(module.p))
    model(torch.randn(2, 3, 8, 8))
    convolutions = sum(isinstance(m, nn.Conv2d) for m in model.modules())
    assert calls == [0.5] * (convolutions - 1)


def test_a_dual_path_block_adds_to_one_path_and_lengthens_the_other():
    model, _ = randomised("dpn_nano")
    block = model.layers[1][1]
    x = torch.randn(2, 32 + 3 * 8, 6, 6)
    new = block.conv3(block.conv2(block.conv1(x)))
    out = block(x)
    assert new.shape[1] == 32 + 8 and out.shape[1] == x.shape[1] + 8
    assert torch.equal(out[:, :32], x[:, :32] + new[:, :32])
    assert torch.equal(out[:, 32:56], x[:, 32:]) and torch.equal(out[:, 56:], new[:, 32:])


def test_poly_3_is_a_polynomial_and_2_way_a_sum():
    model, _ = randomised("polynet_nano", last_scale=0.8)
    (f,) = model.stages[1][0].blocks
    x, s = torch.randn(2, 72, 7, 7), model.stages[1][0].scale
    first = f(x, 0)
    second = f(F.relu(first), 1)
    third = f(F.relu(second), 2)
    torch.testing.assert_close(model.stages[1][0](x), F.relu(x + s * first + s * second + s * third))
    f, g = model.stages[1][1].blocks
    s = model.stages[1][1].scale
    torch.testing.assert_close(model.stages[1][1](x), F.relu(x + s * f(x, 0) + s * g(x, 0)))
    assert [block.scale for stage in model.stages for block in stage] == [1.0, 0.95, 0.9, 0.85, 0.8]


def test_polynet_drops_paths_of_each_image_as_often_as_its_scale_says():
    model = create_model("polynet_nano", last_scale=0.6)
    block = model.stages[2][1]
    assert block.scale == 0.6
    kept = (block.scale * block.drop(torch.ones(4000, 3, 1, 1)))[:, :, 0, 0]
    assert kept.unique().tolist() == pytest.approx([0, 1]) and torch.equal(kept[:, 0], kept[:, 1])
    assert kept.mean().item() == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize(
    "name, overrides, expected",
    [
        ("resnext50_32x4d", {"widths": [8, 64, 64, 64]}, "base_width 4 leaves no channels at a width of 8"),
        ("legacy_senet154", {"pool": "floor"}, "pool is one of padded, ceil"),
        ("seresnet18", {"dilated_stages": 1}, "dilated_stages needs bottleneck"),
        ("wrn_28_10", {"depth": 27}, r"depth is 6 n \+ 4"),
        ("densenet121", {"compression": 0}, "compression is above 0"),
        ("densenet121", {"image_size": 28}, "image_size is at least 29"),
        ("dpn92", {"groups": 7}, "inner is divisible by groups"),
        ("polynet", {"width": 0.3}, "width is a multiple of 1/16"),
        ("polynet", {"image_size": 74}, "image_size is at least 75"),
    ],
)
def test_wrong_settings_are_named(name, overrides, expected):
    with pytest.raises(UsageError, match=expected) as caught:
        configuration(name, **overrides)
    assert name in str(caught.value) and "\n" not in str(caught.value)
