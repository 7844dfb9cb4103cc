"""FPN and FPT for segmentation: the pyramid is torchvision's, the head its description, any trunk and size will do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from orchard.errors import UsageError
from orchard.models import configuration, create_model
from orchard.nn.feature_pyramid import FeaturePyramid
from orchard.nn.global_convolution import GlobalConvolution
from orchard.nn.semantic_head import SemanticHead
from orchard.weights.names import to_ours


def test_the_pyramid_is_torchvisions() -> None:
    """Also where sides are odd."""
    torch.manual_seed(0)
    theirs, ours = FeaturePyramidNetwork([3, 4, 5], 6, LastLevelMaxPool()), FeaturePyramid([3, 4, 5], 6, None)
    rows = [("lateral.{}.{}", "inner_blocks.{}.{}"), ("output.{}.{}", "layer_blocks.{}.{}")]
    ours.load_state_dict(to_ours(rows, theirs.state_dict(), ours.state_dict()))
    maps = [torch.randn(2, channels, *size) for channels, size in ((3, (11, 13)), (4, (6, 7)), (5, (3, 4)))]
    expected = theirs({str(n): one for n, one in enumerate(maps)})
    for found, level in zip(ours(maps), expected.values(), strict=True):
        torch.testing.assert_close(found, level)


def enlarged(x: Tensor) -> Tensor:
    """Twice as large, bilinear, by hand: a new pixel is three quarters of the nearest old one and one of the next."""
    for dim in (2, 3):
        size = x.shape[dim]
        before = x.index_select(dim, torch.arange(size).sub(1).clamp(min=0))
        after = x.index_select(dim, torch.arange(size).add(1).clamp(max=size - 1))
        x = torch.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], dim + 1).flatten(dim, dim + 1)
    return x


def test_the_semantic_head_is_as_described() -> None:
    """Panoptic FPN, section 3.1: three stages from 1/32, two from 1/16, one from 1/8, and from 1/4 one that does not
    enlarge; 3x3 convolution, group norm, ReLU, twice the size; summed. Here written as sums over shifted maps."""
    torch.manual_seed(0)
    head = SemanticHead(6, (4, 8, 16, 32), 8, 4)
    for name, parameter in head.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if name.endswith("1.weight") else 0.0, 0.3)
    levels = [torch.randn(2, 6, 16 >> n, 24 >> n) for n in range(4)]

    def stage(x: Tensor, kernel: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        height, width = x.shape[2:]
        padded = F.pad(x, (1, 1, 1, 1))
        shifts = [
            torch.einsum("oi,bihw->bohw", kernel[:, :, i, j], padded[:, :, i : i + height, j : j + width])
            for i in range(3)
            for j in range(3)
        ]
        y = torch.stack(shifts).sum(0)
        groups = y.view(len(y), 4, -1)
        mean, variance = groups.mean(2, keepdim=True), groups.var(2, correction=0, keepdim=True)
        normed = ((groups - mean) / (variance + 1e-5).sqrt()).view_as(y)
        return (normed * gain.view(-1, 1, 1) + bias.view(-1, 1, 1)).clamp(min=0)

    total = torch.zeros(2, 8, 16, 24)
    for n, x in enumerate(levels):
        parameters = list(head.branches[n].parameters())
        assert len(parameters) == 3 * max(1, n)
        for k in range(0, len(parameters), 3):
            x = stage(x, *parameters[k : k + 3])
            x = enlarged(x) if n else x
        total += x
    torch.testing.assert_close(head(levels), total, atol=1e-5, rtol=1e-4)


def test_a_global_convolution_is_one_of_two_large_kernels() -> None:
    """Of a column and a row each: the sum of their outer products."""
    torch.manual_seed(0)
    ours, x = GlobalConvolution(2, 3, 5), torch.randn(1, 2, 9, 7)
    whole = torch.zeros(3, 2, 5, 5)
    for one, (first, second) in ((ours.first, ("oik", "pol")), (ours.second, ("oil", "pok"))):
        kernels = [layer.weight.flatten(2) for layer in one]  # type: ignore[union-attr]
        whole += torch.einsum(f"{first},{second}->pikl", *kernels)
    torch.testing.assert_close(ours(x), F.conv2d(x, whole, padding=2), atol=1e-5, rtol=1e-4)


TRUNKS = ["resnet_nano", "lambda_resnet_nano", "mobilenetv2_nano", "vit_nano"]


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("name", ["fpn_nano", "fpt_nano"])
def test_any_trunk_and_any_size_of_images(name: str, trunk: str) -> None:
    channels, size = configuration(trunk).in_channels, configuration(trunk).image_size
    narrow = {"width": 8, "head_width": 8, "groups": 2, "num_classes": 5}
    model: Any = create_model(name, trunk=trunk, trunk_settings={}, in_channels=channels, **narrow)
    sizes = [(size, size)] if trunk == "vit_nano" else [(33, 46), (31, 17)]
    for height, width in sizes:
        logits = model(torch.randn(2, channels, height, width))
        assert logits.shape == (2, 5, height, width)
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_one_image_alone_can_be_learned_from() -> None:
    """Rendering norms means of whole maps, of which one image has one."""
    for name in ("fpn_nano", "fpt_nano"):
        assert create_model(name).train()(torch.randn(1, 3, 40, 56)).isfinite().all()


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="groups divide head_width, got 5 and 32"):
        create_model("fpn_nano", groups=5)
    with pytest.raises(ValueError, match=r"grounding is one of distance, local, dot, .* got 'far'"):
        create_model("fpt_nano", grounding="far")
    with pytest.raises(ValueError, match="expected an odd side of at least 1, got 4"):
        create_model("fpt_nano", side=4)
    with pytest.raises(ValueError, match="parts that divide the 16 channels"):
        create_model("fpt_nano", grounding_parts=3)
    with pytest.raises(UsageError, match="neck is one of fpn, fpt, got 'bifpn'"):
        create_model("faster_rcnn_nano", neck="bifpn")
