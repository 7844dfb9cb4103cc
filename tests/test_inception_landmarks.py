"""What the battery cannot know of the Inception family and its neighbours: forms without a reference, by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from orchard.data.batches import ImageBatch
from orchard.errors import UsageError
from orchard.models import configuration, create_model
from orchard.models.vision.bn_inception import HalvingPool
from orchard.tasks.image_classification.objective import ImageClassification
from orchard.tasks.known_classes import head_prefixes
from orchard.weights.sizes import count_parameters


def randomised(name: str, **overrides):
    torch.manual_seed(0)
    model = create_model(name, **overrides).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=(2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1)
    return model


def weights(model):
    """A function that convolves with the weights of a name, and rectifies."""
    state = model.state_dict()

    def conv(name, x, **how):
        return F.relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how))

    return conv


def response_norm(x, alpha, k):
    """b = a / (k + alpha * sum of a² over the five nearest channels) ** 0.75."""
    padded = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
    return x / (k + alpha * sum(padded[:, i : i + x.shape[1]] for i in range(5))) ** 0.75


# GoogLeNet


def test_googlenet_has_the_published_numbers_of_parameters():
    with torch.device("meta"):
        assert count_parameters(create_model("googlenet", auxiliaries=False)) == 6_624_904  # torchvision's page
        assert count_parameters(create_model("googlenet_paper")) == 13_378_280  # Caffe's bvlc_googlenet


def test_googlenet_of_the_paper_by_hand():
    """Table 1, section 5 and the authors' Caffe network, at a tenth of the channels."""
    model = randomised("googlenet_paper", width=0.1, image_size=96, num_classes=5)
    images, conv = torch.randn(2, 3, 96, 96), weights(model)

    def pool(x):
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    x = response_norm(pool(conv("conv1.conv", images, stride=2, padding=3)), 1e-4 / 5, 1.0)
    x = conv("conv3.conv", conv("conv2.conv", x), padding=1)
    x = pool(response_norm(x, 1e-4 / 5, 1.0))
    inner = []
    for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        x = pool(x) if name in ("4a", "5a") else x
        b = f"blocks.{name}"
        x = torch.cat([
            conv(f"{b}.0.0.conv", x),
            conv(f"{b}.1.1.conv", conv(f"{b}.1.0.conv", x), padding=1),
            conv(f"{b}.2.1.conv", conv(f"{b}.2.0.conv", x), padding=2),
            conv(f"{b}.3.1.conv", F.max_pool2d(x, 3, 1, 1)),
        ], 1)  # fmt: skip
        if name in ("4a", "4d"):
            inner.append(F.adaptive_avg_pool2d(F.avg_pool2d(x, 5, 3), 4))
    logits, auxiliaries = model.forward_with_auxiliaries(images)
    torch.testing.assert_close(logits, model.head(x.mean((2, 3))), atol=1e-5, rtol=1e-5)
    assert len(auxiliaries) == 2
    for n, (found, map_) in enumerate(zip(auxiliaries, inner, strict=True)):
        head = model.auxiliaries[n]
        expected = head.head(F.relu(head.hidden(conv(f"auxiliaries.{n}.conv.conv", map_).flatten(1))))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(images), logits)


def test_the_map_of_14x14_is_averaged_to_4x4_by_windows_of_five():
    model = create_model("googlenet_paper", width=0.1, num_classes=5)
    assert model.auxiliaries[0].pool(torch.zeros(1, 1, 14, 14)).shape[2:] == (4, 4)


# Auxiliary classifiers


class WithAuxiliaries(nn.Module):
    """Says the same always: as a model, and with classifiers inside."""

    auxiliary_weight = 0.3

    def forward(self, images):
        return images.flatten(1)

    def forward_with_auxiliaries(self, images):
        return images.flatten(1), (2 * images.flatten(1), 3 * images.flatten(1))


def test_auxiliary_losses_are_added_by_their_weight():
    images, labels = torch.randn(4, 3, 1, 1), torch.tensor([0, 1, 2, 1])
    batch = ImageBatch(images, labels, torch.arange(4))
    scores = images.flatten(1)
    main, second, third = (F.cross_entropy(k * scores, labels, label_smoothing=0.1) for k in (1, 2, 3))
    for weight in (0.0, 0.3):
        objective = ImageClassification("abc", label_smoothing=0.1, auxiliary_weight=weight)
        loss, figures = objective.loss(WithAuxiliaries(), batch)
        torch.testing.assert_close(loss, main + weight * (second + third))
        assert figures["accuracy"] == (scores.argmax(1) == labels).float().mean()
        assert objective.phases[0].through_forward == (weight == 0)  # else gradients are averaged by the loop


def test_heads_inside_have_rows_for_classes_too():
    with torch.device("meta"):
        assert head_prefixes(create_model("googlenet_nano")) == ("head.", "auxiliaries.0.head.", "auxiliaries.1.head.")
        assert head_prefixes(create_model("resnet_nano")) == ("head.",)


def test_an_auxiliary_classifier_that_does_not_fit_is_refused_before_training():
    with pytest.raises(UsageError, match="at least 299 with an auxiliary classifier, got 224; auxiliary = false"):
        configuration("inception_v3", image_size=224)
    with torch.device("meta"):
        model = create_model("inception_v3", image_size=75, auxiliary=False)
        assert model.auxiliary_weight == 0 and model(torch.empty(2, 3, 75, 75)).shape == (2, 1000)
        full = create_model("inception_v3")
        logits, (auxiliary,) = full.forward_with_auxiliaries(torch.empty(2, 3, 299, 299))
        assert logits.shape == auxiliary.shape == (2, 1000)
        with pytest.raises(ValueError, match="at least 299 pixels"):
            full.forward_with_auxiliaries(torch.empty(2, 3, 298, 298))


# BN-Inception


def test_a_halving_pool_fits_the_convolutions_beside_it():
    even, odd = torch.rand(2, 3, 8, 6), torch.rand(2, 3, 7, 9)
    assert torch.equal(HalvingPool()(even), F.max_pool2d(even, 3, 2, ceil_mode=True))
    assert HalvingPool()(odd).shape == nn.Conv2d(3, 3, 3, 2, padding=1)(odd).shape


# ZFNet


def test_zfnet_by_hand():
    model = randomised("zfnet_nano", strides=(2, 2), image_size=64, num_classes=5)
    images, conv = torch.randn(2, 1, 64, 64), weights(model)

    def pool(x):
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    x = response_norm(pool(conv("conv1", images, stride=2, padding=1)), 1e-4, 2.0)
    x = response_norm(pool(conv("conv2", x, stride=2)), 1e-4, 2.0)
    for name in ("conv3", "conv4", "conv5"):
        x = conv(name, x, padding=1)
    x = F.adaptive_avg_pool2d(pool(x), 2).flatten(1)
    expected = model.head(F.relu(model.fc2(F.relu(model.fc1(x)))))
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)


def test_zfnet_has_the_maps_of_figure_3():
    with torch.device("meta"):
        model = create_model("zfnet")
        first = model.conv1(torch.empty(1, 3, 224, 224))
        assert first.shape[2:] == (110, 110) and model.conv2(model.pool(first)).shape[2:] == (26, 26)
        assert [m.shape[2] for m in model.feature_maps(torch.empty(1, 3, 224, 224))] == [55, 13, 6]


# Network in Network


def test_network_in_network_by_hand():
    model = randomised("nin_cifar", widths=(12, 10, 6, 8, 8, 8, 8, 8))
    images, conv = torch.randn(2, 3, 32, 32), weights(model)

    def mlpconv(n, x, padding, count):
        x = conv(f"layers.{n}.0", x, padding=padding)
        for layer in range(1, count):
            x = conv(f"layers.{n}.{2 * layer}", x)
        return x

    x = F.max_pool2d(mlpconv(0, images, 2, 3), 3, 2, ceil_mode=True)
    x = mlpconv(1, x, 2, 3)
    windows = F.pad(x, (0, 1, 0, 1)).unfold(2, 3, 2).unfold(3, 3, 2)  # what lies outside counts for nothing
    inside = F.pad(torch.ones_like(x), (0, 1, 0, 1)).unfold(2, 3, 2).unfold(3, 3, 2)
    x = mlpconv(2, windows.sum((4, 5)) / inside.sum((4, 5)), 1, 2)
    expected = conv("head", x).mean((2, 3))
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)


def test_network_in_network_has_the_maps_of_the_authors_network():
    with torch.device("meta"):
        model = create_model("nin_imagenet")
        assert [m.shape[2] for m in model.feature_maps(torch.empty(1, 3, 224, 224))] == [54, 27, 13, 6]
