"""What the battery cannot know of the convolutional landmarks: wirings without a reference, computed here by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import correlate2d
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from orchard.errors import UsageError
from orchard.models import configuration, create_model
from orchard.models.vision.lenet import C3_SEES, class_codes
from orchard.models.vision.resnet import PadShortcut
from orchard.models.vision.resnetv2 import PreActBasic, PreActBottleneck


def randomised(name: str, **overrides):
    """A variant with every parameter and running statistic drawn at random, in evaluation mode."""
    torch.manual_seed(0)
    model = create_model(name, **overrides).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.normal_(std=fan_in**-0.5)
        for key, buffer in model.named_buffers():
            if key.endswith("running_mean"):
                buffer.normal_(std=0.3)
            elif key.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return model


# LeNet


def test_lenet5_of_1998_has_the_paper_s_sixty_thousand():
    model = create_model("lenet5_1998")
    counts = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
    assert counts == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48_120, "f6": 10_164, "head": 0}


def test_c3_sees_what_table_1_says():
    assert [len(row) for row in C3_SEES] == [3] * 6 + [4] * 9 + [6]
    assert len(set(C3_SEES)) == 16
    for row in C3_SEES[:12]:  # "every contiguous subset", the maps standing in a ring
        assert any({(first + i) % 6 for i in range(len(row))} == set(row) for first in range(6))
    for row in C3_SEES[12:15]:
        assert not any({(first + i) % 6 for i in range(4)} == set(row) for first in range(6))
    assert all(sum(seen in row for row in C3_SEES) == 10 for seen in range(6))


def test_lenet5_of_1998_is_the_paper_s_computation():
    """Figure 2 and equations 5 to 7, with scipy's correlation and loops."""
    model = randomised("lenet5_1998")
    w = {key: value.double().numpy() for key, value in model.state_dict().items()}
    picture = np.random.default_rng(0).normal(size=(32, 32))

    def squash(x):
        return 1.7159 * np.tanh(2 / 3 * x)

    def subsample(maps, gain, bias):
        out = np.empty((len(maps), maps.shape[1] // 2, maps.shape[2] // 2))
        for m, i, j in np.ndindex(out.shape):
            out[m, i, j] = maps[m, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].sum() * gain[m, 0, 0] + bias[m, 0, 0]
        return squash(out)

    c1 = squash(np.stack([correlate2d(picture, w["c1.weight"][m, 0], "valid") + w["c1.bias"][m] for m in range(6)]))
    s2 = subsample(c1, w["s2.weight"], w["s2.bias"])
    kernels = iter(w["c3.weight"])
    c3 = []
    for m, row in enumerate(C3_SEES):
        c3.append(sum(correlate2d(s2[seen], next(kernels), "valid") for seen in row) + w["c3.bias"][m])
    s4 = subsample(squash(np.stack(c3)), w["s4.weight"], w["s4.bias"])
    c5 = squash(w["c5.weight"] @ s4.ravel() + w["c5.bias"])
    f6 = squash(w["f6.weight"] @ c5 + w["f6.bias"])
    distances = ((f6 - w["head.codes"]) ** 2).sum(1)

    logits = model(torch.from_numpy(picture).float()[None, None])
    np.testing.assert_allclose(logits[0].detach().numpy(), -distances, rtol=1e-5)
    np.testing.assert_allclose(model.features(torch.from_numpy(picture).float()[None, None])[0].detach(), s4, atol=1e-5)
    labels = torch.tensor([3])
    criterion = distances[3] + np.log(np.exp(-distances).sum())  # equation 9 without its constant
    assert F.cross_entropy(logits.double(), labels).item() == pytest.approx(criterion, rel=1e-5)


def test_class_codes_are_signs_that_differ_and_stay():
    for classes in (2, 10, 26, 1000):
        codes = class_codes(classes)
        assert codes.shape == (classes, 84) and set(codes.unique().tolist()) == {-1.0, 1.0}
        assert len({tuple(row) for row in codes.tolist()}) == classes
        assert torch.equal(codes, class_codes(classes))
    digits = class_codes(10)
    assert ((digits[:, None] != digits).sum(-1) + 84 * torch.eye(10, dtype=torch.int64)).min() >= 4
    one = digits[1].view(12, 7)
    assert (one[1:11, 3] == 1).all() and (one[0] == -1).all()


def test_other_lenets_are_the_usual_chain_of_layers():
    m = randomised("lenet5")
    first = [m.c1, nn.Tanh(), nn.AvgPool2d(2), m.c3, nn.Tanh(), nn.AvgPool2d(2), nn.Flatten()]
    chain = nn.Sequential(*first, m.c5, nn.Tanh(), m.f6, nn.Tanh(), m.head)
    images = torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(m(images), chain(images), atol=0, rtol=0)

    m = randomised("lenet_caffe")
    first = [m.conv1, nn.MaxPool2d(2), m.conv2, nn.MaxPool2d(2), nn.Flatten()]
    chain = nn.Sequential(*first, m.ip1, nn.ReLU(), m.head)
    images = torch.randn(3, 1, 28, 28)
    torch.testing.assert_close(m(images), chain(images), atol=0, rtol=0)


def test_lenet_300_100_by_hand():
    model = randomised("lenet_300_100")
    w = {key: value.double().numpy() for key, value in model.state_dict().items()}
    picture = torch.randn(1, 1, 28, 28)
    x = picture.double().numpy().ravel()
    for layer in ("fc1", "fc2"):
        x = 1.7159 * np.tanh(2 / 3 * (w[f"{layer}.weight"] @ x + w[f"{layer}.bias"]))
    expected = w["head.weight"] @ x + w["head.bias"]
    np.testing.assert_allclose(model(picture)[0].detach().numpy(), expected, atol=1e-5)


def test_lenet_of_1998_starts_within_its_bounds():
    model = create_model("lenet5_1998")
    for layer, fan_in in ((model.c1, 25), (model.c5, 400), (model.f6, 120), (model.s2, 4)):
        largest = layer.weight.abs().max().item()
        assert 0.5 * 2.4 / fan_in < largest <= 2.4 / fan_in
    assert model.c3.weight[:3].abs().max() <= 2.4 / 75 and model.c3.weight[-6:].abs().max() <= 2.4 / 150


# AlexNet


def test_response_norm_is_the_paper_s():
    """Section 3.3: b = a / (2 + 1e-4 * sum of a² over the five nearest channels) ** 0.75."""
    norm = create_model("alexnet_2012_nano").norm
    a = 30 * torch.randn(2, 11, 3, 3, dtype=torch.float64)
    for channel in range(11):
        window = a[:, max(0, channel - 2) : min(10, channel + 2) + 1]
        expected = a[:, channel] / (2 + 1e-4 * window.square().sum(1)) ** 0.75
        torch.testing.assert_close(norm(a)[:, channel], expected)


def test_alexnet_2012_by_hand():
    """The two halves as two columns of ordinary convolutions, the norm by its formula."""
    model = randomised("alexnet_2012_nano")
    images = torch.randn(2, 3, 99, 99)

    def norm(x):
        padded = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
        return x / (2 + 1e-4 * sum(padded[:, i : i + x.shape[1]] for i in range(5))) ** 0.75

    def halves(layer, x, padding):
        pieces = zip(x.chunk(2, 1), layer.weight.chunk(2), layer.bias.chunk(2), strict=True)
        return torch.cat([F.conv2d(half, weight, bias, padding=padding) for half, weight, bias in pieces], 1)

    x = F.max_pool2d(norm(F.relu(F.conv2d(images, model.conv1.weight, model.conv1.bias, stride=4))), 3, 2)
    x = F.max_pool2d(norm(F.relu(halves(model.conv2, x, 2))), 3, 2)
    x = F.relu(F.conv2d(x, model.conv3.weight, model.conv3.bias, padding=1))
    x = F.relu(halves(model.conv4, x, 1))
    x = F.max_pool2d(F.relu(halves(model.conv5, x, 1)), 3, 2)
    torch.testing.assert_close(model.features(images), x, atol=1e-5, rtol=1e-5)
    x = F.adaptive_avg_pool2d(x, 6).flatten(1)
    x = F.relu(model.fc2(F.relu(model.fc1(x))))
    torch.testing.assert_close(model(images), model.head(x), atol=1e-5, rtol=1e-5)


def test_alexnet_2012_maps_and_start():
    with torch.device("meta"):
        model = create_model("alexnet_2012")
        assert model.features(torch.empty(1, 3, 227, 227)).shape == (1, 256, 6, 6)
    assert [model.dropout1.p, model.dropout2.p, model.dropout3.p] == [0.0, 0.5, 0.5]
    small = create_model("alexnet_2012_nano", start="2012")
    ones = {name for name, p in small.named_parameters() if name.endswith("bias") and (p == 1).all()}
    assert ones == {"conv2.bias", "conv4.bias", "conv5.bias", "fc1.bias", "fc2.bias"}
    assert small.fc1.weight.std().item() == pytest.approx(0.01, rel=0.05)


# ResNet


def test_option_a_takes_every_second_pixel_and_adds_empty_channels():
    x = torch.randn(2, 16, 8, 8)
    out = PadShortcut(16, 32, 2)(x)
    assert out.shape == (2, 32, 4, 4)
    for i, j in np.ndindex(4, 4):
        assert torch.equal(out[:, :16, i, j], x[:, :, 2 * i, 2 * j])
    assert not out[:, 16:].any()
    shortcuts = [m for m in create_model("resnet20").modules() if isinstance(m, PadShortcut)]
    assert len(shortcuts) == 2 and not any(list(m.parameters()) for m in shortcuts)


@pytest.mark.parametrize(
    "name, depth",
    [
        *[("resnet20", 20), ("resnet56", 56), ("resnet34", 34), ("resnet50", 50), ("resnet152", 152)],
        *[("vgg13", 13), ("vgg19_bn", 19), ("preact164", 164), ("resnetv2_101", 101), ("resnetv2_200", 200)],
    ],
)
def test_layers_are_as_many_as_the_name_says(name, depth):
    with torch.device("meta"):
        model = create_model(name)
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in n]
    assert len(layers) == depth


def test_stride_of_the_paper_and_of_v1_5():
    with torch.device("meta"):
        macs = {}
        for place in ("1x1", "3x3"):
            model = create_model("resnet50", stride_on=place)
            first = model.layers[1][0]
            assert (first.conv1.stride[0] == 2) == (place == "1x1") and (first.conv2.stride[0] == 2) == (place == "3x3")
            with FlopCounterMode(display=False) as counter:
                model(torch.empty(1, 3, 224, 224))
            macs[place] = counter.get_total_flops() / 2
    assert macs["3x3"] == 4_089_184_256
    assert macs["1x1"] == pytest.approx(3.86e9, rel=2e-3)  # the paper's 3.8 billion (table 1)


@pytest.mark.parametrize(
    "name, channels",
    [
        ("resnet18", (64, 128, 256, 512)),
        ("resnet50", (256, 512, 1024, 2048)),
        ("resnetv2_50", (256, 512, 1024, 2048)),
    ],
)
def test_stages_give_a_pyramid(name, channels):
    with torch.device("meta"):
        model = create_model(name)
        maps = model.feature_maps(torch.empty(2, 3, 96, 64))
    assert [tuple(m.shape) for m in maps] == [
        (2, c, 96 // stride, 64 // stride) for c, stride in zip(channels, (4, 8, 16, 32), strict=True)
    ]
    small = create_model(name, depths=(1, 1, 1, 1), widths=(8, 8, 16, 16), stem_width=8).eval()
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(small.feature_maps(images)[-1], small.features(images))


def test_cifar_resnet_by_hand():
    """Section 4.2: the last block of stage one, the first of stage two and what stands around them."""
    model = randomised("resnet20", depths=(1, 1, 1))
    images = torch.randn(2, 3, 32, 32)

    def norm(x, bn):
        shape = (1, -1, 1, 1)
        scaled = (x - bn.running_mean.view(shape)) / (bn.running_var.view(shape) + 1e-5).sqrt()
        return scaled * bn.weight.view(shape) + bn.bias.view(shape)

    x = F.relu(norm(F.conv2d(images, model.conv1.weight, padding=1), model.bn1))
    for stride, (block,) in zip((1, 2, 2), model.layers, strict=True):
        out = F.relu(norm(F.conv2d(x, block.conv1.weight, stride=stride, padding=1), block.bn1))
        out = norm(F.conv2d(out, block.conv2.weight, padding=1), block.bn2)
        if stride == 2:
            x = torch.cat([x[:, :, ::2, ::2], torch.zeros_like(x[:, :, ::2, ::2])], 1)
        x = F.relu(x + out)
    expected = F.linear(x.mean((2, 3)), model.head.weight, model.head.bias)
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)


def test_cifar_preact_by_hand():
    """The authors' code: stride on the first 1x1, a projection of the rectified map, one norm before the mean."""
    model = randomised("preact164", depths=(2, 1, 1))
    images = torch.randn(2, 3, 32, 32)
    x = F.conv2d(images, model.stem.weight, padding=1)
    for stride, stage in zip((1, 2, 2), model.layers, strict=True):
        for n, block in enumerate(stage):
            first = stride if n == 0 else 1
            a = F.relu(block.norm1(x))
            line = F.conv2d(a, block.shortcut.weight, stride=first) if n == 0 else x
            out = F.conv2d(a, block.conv1.weight, stride=first)
            out = F.conv2d(F.relu(block.norm2(out)), block.conv2.weight, padding=1)
            x = line + F.conv2d(F.relu(block.norm3(out)), block.conv3.weight)
    expected = model.head(F.relu(model.norm(x)).mean((2, 3)))
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("block", [PreActBasic(16, 16, 1), PreActBottleneck(16, 4, 1, "3x3")])
def test_a_pre_activation_block_that_adds_nothing_passes_everything(block):
    nn.init.zeros_(getattr(block, "conv3", block.conv2).weight)
    x = torch.randn(2, 16, 5, 5)
    assert torch.equal(block(x), x)  # below zero too: nothing stands on the line


def test_convolutions_start_with_variance_two_over_fan_out():
    for layer in (create_model("resnet18").layers[3][1].conv2, create_model("vgg_nano").trunk[-4]):
        fan_out = layer.weight.shape[0] * 9
        assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.03)


# What is refused


@pytest.mark.parametrize("name, least", [("alexnet_nano", 63), ("alexnet_2012_nano", 67), ("vgg_nano", 8)])
def test_smallest_picture(name, least):
    model = create_model(name).eval()
    channels = model.config.in_channels
    assert model(torch.randn(2, channels, least, least)).isfinite().all()
    with pytest.raises(ValueError, match=f"at least {least} pixels"):
        model(torch.randn(2, channels, least - 1, least))
    with pytest.raises(UsageError, match=f"image_size is at least {least}"):
        create_model(name, image_size=least - 1)


@pytest.mark.parametrize(
    "name, overrides, expected",
    [
        ("lenet5", {"wiring": "2012"}, "wiring is one of modern, 1998, caffe, 300-100"),
        ("lenet5", {"image_size": 12}, "image_size is at least 16"),
        ("resnet18", {"depths": [2, 2]}, "depths and widths"),
        ("resnet18", {"stem": "5x5"}, "stem is one of 7x7, 3x3, got '5x5'"),
        ("resnet50", {"stride_on": "both"}, "stride_on is one of 3x3, 1x1"),
        ("resnetv2_50", {"stem": 7}, "stem is one of"),
        ("vgg11", {"widths": [64]}, "depths and widths"),
        ("alexnet", {"start": "zero"}, "start is one of"),
    ],
)
def test_wrong_settings_are_named(name, overrides, expected):
    with pytest.raises(UsageError, match=expected) as caught:
        configuration(name, **overrides)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_lenet_of_another_size_than_configured_is_refused():
    with pytest.raises(ValueError, match=r"\(B, 1, 32, 32\), got \(2, 1, 28, 28\)"):
        create_model("lenet5")(torch.zeros(2, 1, 28, 28))
    assert create_model("lenet5", image_size=28, in_channels=3)(torch.zeros(2, 3, 28, 28)).shape == (2, 10)
