"""BigGAN and SAGAN: their parts, both networks in training, and official names, against stored figures."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.nn.conditional_norm import ConditionalBatchNorm2d
from orchard.nn.self_attention_map import MapAttention
from orchard.nn.spectral_norm import SpectralConv2d, SpectralEmbedding, SpectralLinear

GOLDEN = Path(__file__).parent / "golden"
STATE = {"u0": "u", "sv0": "sigma"}  # what official code calls the state of a spectral norm


def ours(name: str) -> str:
    rest, dot, last = name.rpartition(".")
    return rest + dot + STATE.get(last, last)


# Parts


def test_attention_is_that_of_the_official_code_in_evaluation_and_in_training():
    params = load_file(GOLDEN / "biggan/attention_a/params.safetensors")
    io = load_file(GOLDEN / "biggan/attention_a/io.safetensors")
    attention = MapAttention(16, lambda i, o: SpectralConv2d(i, o, 1, bias=False, eps=1e-12)).eval()
    attention.load_state_dict({ours(name): tensor for name, tensor in params.items()})
    torch.testing.assert_close(attention(io["in.x"]), io["out.eval.y"], atol=1e-5, rtol=1e-5)

    torch.testing.assert_close(attention.train()(io["in.x"]), io["out.train.y"], atol=1e-5, rtol=1e-5)
    after = {name.removeprefix("out.train.after."): t for name, t in io.items() if "after" in name}
    assert len(after) == 8
    for name, tensor in after.items():
        torch.testing.assert_close(attention.state_dict()[ours(name)], tensor, atol=1e-5, rtol=1e-5)


def test_attention_begins_as_the_identity():
    x = torch.randn(2, 16, 7, 7)  # an odd side loses its last row of keys
    assert torch.equal(MapAttention(16, lambda i, o: nn.Conv2d(i, o, 1))(x), x)


@pytest.mark.parametrize("layer", [
    SpectralConv2d(5, 6, 3, bias=True, eps=1e-6), SpectralLinear(5, 6, bias=False, eps=1e-6),
    SpectralEmbedding(6, 5, eps=1e-6),
])  # fmt: skip
def test_iterations_find_the_largest_singular_value(layer):
    with torch.no_grad():
        layer.weight.normal_(0, 3)
    for _ in range(200):
        weight = layer.normalised()
    assert float(torch.linalg.matrix_norm(weight.detach().flatten(1), 2)) == pytest.approx(1, rel=1e-4)
    largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
    assert float(layer.sigma) == pytest.approx(float(largest), rel=1e-4)
    # the gradient of a norm of one: nothing along the weight itself
    (gradient,) = torch.autograd.grad((weight * torch.randn_like(weight)).sum(), layer.weight)
    along = (gradient * layer.weight.detach()).sum()
    assert abs(float(along)) < 1e-3 * float(gradient.norm() * layer.weight.detach().norm())
    state = layer.u.clone()
    layer.eval().normalised()
    assert torch.equal(layer.u, state)


def test_a_spectral_norm_iterates_in_float32_beside_bf16():
    layer = SpectralLinear(8, 6, bias=True, eps=1e-6).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.normalised(), layer.normalised().float())
        assert layer(torch.randn(2, 8)).dtype == torch.bfloat16


def test_a_conditional_norm_with_zeros_is_batch_norm():
    gain, bias = nn.Embedding(3, 4), nn.Embedding(3, 4)
    norm, plain = ConditionalBatchNorm2d(4, gain, bias, eps=1e-5), nn.BatchNorm2d(4, affine=False)
    x, labels = torch.randn(5, 4, 2, 2), torch.tensor([0, 1, 2, 2, 0])
    expected: Tensor = plain(x)
    with torch.no_grad():
        scaled = expected * (1 + gain.weight[labels])[:, :, None, None] + bias.weight[labels][:, :, None, None]
    torch.testing.assert_close(norm(x, labels), scaled)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(norm, name), getattr(plain, name))
