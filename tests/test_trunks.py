"""The trunk contract: every classifier with feature maps says their strides and channels, and keeps to them."""

import pytest
import torch
from battery import CARDS, CLASSIFICATION, SMALL, Small, smalls
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d

from orchard.errors import UsageError
from orchard.models import create_model, picture_size
from orchard.models.vision.trunk import create_trunk, freeze_batch_norms
from orchard.weights.official import load_official
from orchard.weights.reference import randomise

WITHOUT_MAPS = ("lenet_300_100", "dbn", "imagegpt_classifier")  # no convolutions, or tokens that look back alone
SMALL_TRUNKS = [
    id for id, small in SMALL.items() if small.card.task == CLASSIFICATION and not small.name.startswith(WITHOUT_MAPS)
]
every_trunk = smalls(SMALL_TRUNKS)


def shapes(small, more=0):
    """A small trunk, the side of its pictures and the shapes of its maps of two of them, `more` pixels larger."""
    name, overrides = small.name, small.overrides
    side = picture_size(small.grown().config)[0] + more
    with torch.device("meta"):
        trunk = create_trunk(name, overrides | {"image_size": side}).eval()
        maps = trunk.feature_maps(torch.empty(2, trunk.config.in_channels, side, side))
    return trunk, side, [tuple(one.shape) for one in maps]


@every_trunk
def test_maps_have_the_channels_and_strides_that_a_trunk_states(small):
    trunk, side, maps = shapes(small)
    assert len(maps) == len(trunk.strides) == len(trunk.channels) >= 1
    assert [(count, channels) for count, channels, _, _ in maps] == [(2, c) for c in trunk.channels]
    assert list(trunk.strides) == sorted(trunk.strides)
    # Pictures larger by one step of the coarsest map have that many cells more on every map.
    step = trunk.strides[-1]
    _, _, larger = shapes(small, more=step)
    for before, after, stride in zip(maps, larger, trunk.strides, strict=True):
        assert before[2] == before[3] <= -(-side // stride)
        assert after[2] - before[2] == step // stride, f"a stride of {stride} is stated"


def test_every_classifier_with_convolutions_or_tokens_is_a_trunk():
    modules = {card.module for card in CARDS.values() if card.task == CLASSIFICATION and card.name not in WITHOUT_MAPS}
    assert {SMALL[id].card.module for id in SMALL_TRUNKS} == modules


@every_trunk
def test_the_last_map_is_what_the_head_sees(small):
    model, inputs = small.grown(), small.inputs(2)
    maps, features = model.feature_maps(**inputs), model.features(**inputs)
    assert all(one.isfinite().all() for one in maps)
    if features.ndim == 3:  # tokens: the patches in rows, normed even where the classifier norms after pooling
        features = (model.norm(features) if model.config.pool == "mean_norm" else features)[:, model.prefix :]
        features = features.transpose(1, 2).reshape(maps[-1].shape)
    assert torch.equal(maps[-1], features)


@every_trunk
def test_a_trunk_keeps_nothing_that_its_maps_do_not_need(small):
    small.grown()  # which skips what is too large
    trunk = create_trunk(small.name, small.overrides).eval()
    maps = trunk.feature_maps(**small.inputs(2))
    loss = sum((one * torch.randn(one.shape)).sum() for one in maps)
    parameters = dict(trunk.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    assert [key for key, gradient in zip(parameters, gradients, strict=True) if gradient is None] == []


def test_what_has_no_maps_is_refused():
    with pytest.raises(UsageError, match="lenet_300_100 has no feature maps"):
        create_trunk("lenet_300_100", {})
    with pytest.raises(UsageError, match="gpt2_nano has no feature maps"):
        create_trunk("gpt2_nano", {})


@pytest.mark.parametrize("dilated", [1, 2])
def test_dilation_in_place_of_strides_is_torchvision_s(dilated):
    replaced, depths = [False] * (3 - dilated) + [True] * dilated, (1, 1, 2, 3)
    theirs = ResNet(Bottleneck, depths, num_classes=5, replace_stride_with_dilation=replaced).eval()
    images = torch.randn(2, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    randomise(theirs, lambda: theirs(images), seed=0)
    ours = create_model("resnet50", num_classes=5, depths=depths, dilated_stages=dilated).eval()
    load_official(ours, theirs.state_dict(), "torchvision")
    assert ours.strides == ((4, 8, 16, 16), (4, 8, 8, 8))[dilated - 1]
    torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-5)


def test_dilation_is_refused_where_there_is_none():
    with pytest.raises(UsageError, match="dilated_stages needs bottleneck"):
        create_model("resnet18", dilated_stages=1)
    with pytest.raises(UsageError, match="dilated_stages is 0 to 3, got 4"):
        create_model("resnet50", dilated_stages=4)


def test_frozen_norms_compute_what_batch_norms_do_in_evaluation():
    small = Small("resnet_nano")
    model, inputs = small.grown(), small.inputs(2)
    frozen = create_model("resnet_nano")
    frozen.load_state_dict(model.state_dict())
    freeze_batch_norms(frozen)
    norms = [module for module in frozen.modules() if isinstance(module, FrozenBatchNorm2d)]
    assert len(norms) == len([module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]) > 5
    # In training too: nothing of the batch goes into them.
    torch.testing.assert_close(frozen.train()(**inputs), model(**inputs), atol=1e-5, rtol=1e-5)
    assert not any("bn" in name for name, _ in frozen.named_parameters())
    assert {key for key in model.state_dict() if "num_batches" not in key} == frozen.state_dict().keys()
