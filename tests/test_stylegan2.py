"""StyleGAN2's parts against what they stand for, and the pair in training and at work."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.nn.equalised import EqualisedConv2d, EqualisedLinear
from orchard.nn.filtered_resampling import Doubling, LowPass, halving
from orchard.nn.minibatch_stddev import MinibatchStddev
from orchard.nn.modulated_conv import ModulatedConv2d
from orchard.nn.noise_injection import NoiseInjection

# Parts


def test_equalised_layers_keep_the_variance_and_learn_at_their_own_speed() -> None:
    torch.manual_seed(0)
    slow = EqualisedLinear(400, 300, bias=1.0, lr_multiplier=0.01)
    assert float(slow.weight.detach().std()) == pytest.approx(100, rel=0.02)
    out = slow(torch.randn(50, 400)).detach()
    assert float(out.mean()) == pytest.approx(1, abs=0.05) and float(out.std()) == pytest.approx(1, rel=0.05)
    conv = EqualisedConv2d(30, 200, 3, padding=1)
    out = conv(torch.randn(4, 30, 12, 12)).detach()[:, :, 1:-1, 1:-1]
    assert float(conv.weight.detach().std()) == pytest.approx(1, rel=0.02)
    assert float(out.std()) == pytest.approx(1, rel=0.05)


def zeros_between(x: Tensor) -> Tensor:
    wide = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    wide[:, :, ::2, ::2] = x
    return wide


def test_resampling_is_zeros_between_pixels_the_filter_and_every_second_pixel() -> None:
    x = torch.randn(2, 3, 6, 8)
    torch.testing.assert_close(Doubling()(x), LowPass(2, 1, gain=4.0)(zeros_between(x)))
    torch.testing.assert_close(halving()(x), LowPass(1, 1)(x)[:, :, ::2, ::2])
    bilinear = F.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(Doubling()(x)[:, :, 1:-1, 1:-1], bilinear[:, :, 1:-1, 1:-1])
    flat = torch.ones(1, 1, 8, 8)
    torch.testing.assert_close(halving()(flat)[:, :, 1:-1, 1:-1], torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize(("demodulate", "upsample"), [(True, False), (False, False), (True, True)])
def test_a_modulated_convolution_is_one_of_each_sample_s_own_weights(demodulate: bool, upsample: bool) -> None:
    torch.manual_seed(0)
    layer = ModulatedConv2d(5, 7, 3, 4, demodulate=demodulate, upsample=upsample).double()
    x, styles = torch.randn(3, 5, 6, 6).double(), torch.randn(3, 4).double()
    expected = []
    for one, style in zip(x, styles, strict=True):  # equations 1 and 3 of the paper
        weight = layer.weight * layer.gain * layer.style(style)[None, :, None, None]
        if demodulate:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if upsample:
            wide = F.conv_transpose2d(one[None], weight.transpose(0, 1), stride=2)
            expected.append(LowPass(1, 1, gain=4.0).double()(wide))
        else:
            expected.append(F.conv2d(one[None], weight, padding=1))
    torch.testing.assert_close(layer(x, styles), torch.cat(expected))


def test_a_demodulated_map_has_unit_variance_whatever_the_style() -> None:
    torch.manual_seed(0)
    layer = ModulatedConv2d(32, 64, 3, 8)
    found = [layer(torch.randn(2, 32, 16, 16), size * torch.randn(2, 8)).std().item() for size in (0.1, 1, 30)]
    assert found == pytest.approx([1, 1, 1], rel=0.1)


def test_the_minibatch_s_standard_deviation_is_of_groups_across_the_batch() -> None:
    x = torch.randn(8, 3, 2, 2)
    out = MinibatchStddev()(x)
    torch.testing.assert_close(out[:, :3], x)
    for start in (0, 1):  # 0, 2, 4, 6 and 1, 3, 5, 7
        spread = x[start::2].std(0, unbiased=False).mean()
        torch.testing.assert_close(out[start::2, 3], spread.expand(4, 2, 2))
    alike = MinibatchStddev()(x[:1].repeat(4, 1, 1, 1))[:, 3]
    assert float(alike.max()) == pytest.approx(1e-4)
    assert MinibatchStddev()(x[:6]).shape == (6, 4, 2, 2)  # in threes
    assert float(MinibatchStddev()(x[:5])[0, 3, 0, 0]) == pytest.approx(1e-4)  # each alone


def test_noise_is_new_in_training_stored_otherwise_and_starts_at_nothing() -> None:
    noise = NoiseInjection(4)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(noise(x), x)
    nn.init.ones_(noise.strength)
    assert not torch.equal(noise(x), noise(x))
    noise.eval()
    torch.testing.assert_close(noise(x), x + noise.stored)
    given = torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(noise(x, given), x + given)
