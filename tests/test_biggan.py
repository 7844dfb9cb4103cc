"""BigGAN and SAGAN: their parts, both networks in training, and official names, against stored figures."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.cards import card_of
from orchard.errors import UsageError
from orchard.models import configuration, create_model
from orchard.nn.conditional_norm import ConditionalBatchNorm2d
from orchard.nn.self_attention_map import MapAttention
from orchard.nn.spectral_norm import SpectralConv2d, SpectralEmbedding, SpectralLinear, fold_spectral_norms
from orchard.weights.adapters.conditional_pair import ADAPTER
from orchard.weights.golden import read_golden
from orchard.weights.official import export_official, load_official, read_official

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


# Both networks


def prefixed(name: str) -> str:
    return {"G": "generator", "D": "discriminator"}[name[0]] + name[1:]


@pytest.mark.parametrize("name", ["biggan128", "sagan"])
def test_a_step_leaves_the_state_that_the_official_code_leaves(name):
    row = card_of(name).references[0]
    case = ADAPTER.stored(read_golden(GOLDEN / row.reference.partition(":")[2]))
    pair = create_model(name, **row.ours)
    load_official(pair, case.state, "ajbrock")
    pair.train()
    with torch.no_grad():
        fake = pair.generator(case.given("z"), case.given("y"))
        labels = torch.cat([case.given("y"), case.given("y_real")])
        pair.discriminator(torch.cat([fake, case.given("x_real")]), labels)
    state = export_official(pair, "ajbrock")
    after = {prefixed(key): tensor for key, tensor in case.below("after_dstep").items()}
    buffers = {key for key in state if key.rpartition(".")[2] in ("u0", "sv0", "stored_mean", "stored_var")}
    assert after.keys() == buffers
    for key, tensor in after.items():
        torch.testing.assert_close(state[key], tensor, atol=1e-5, rtol=1e-5, msg=lambda text, key=key: f"{key}: {text}")


def test_official_files_have_the_names_and_shapes_of_ours():
    listed = json.loads((GOLDEN / "biggan/official_checkpoint_keys.json").read_text())
    with torch.device("meta"):
        pair = create_model("biggan128")
        theirs = export_official(pair, "ajbrock")
    expected = {prefixed(f"{side}.{key}"): shape for side in "GD" for key, shape in listed[side].items()}
    assert {key: list(tensor.shape) for key, tensor in theirs.items()} == expected
    for side, network in (("G", pair.generator), ("D", pair.discriminator)):
        assert sum(p.numel() for p in network.parameters()) == listed[f"{side}_parameters"]


@pytest.mark.parametrize("name", ["biggan_nano", "sagan_nano"])
def test_a_file_says_how_many_classes_it_has(name):
    more = {"noise": 30} if name == "biggan_nano" else {}
    small = {"generator_widths": (16, 16, 16), "discriminator_widths": (16,) * 3}
    theirs = export_official(create_model(name, num_classes=3, **small, **more), "ajbrock")
    found = read_official(name, theirs, None, small)
    assert vars(found.model.config) == vars(configuration(name, num_classes=3, **small, **more))
    assert found.about.classes == ("0", "1", "2")


@pytest.mark.parametrize("name", ["biggan_nano", "sagan_nano"])
def test_labels_decide_what_is_made_and_how_it_is_scored(name):
    torch.manual_seed(0)
    pair = create_model(name).eval()
    noise, zeros, ones = pair.sample_noise(3), torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64)
    images = pair.generate(noise, zeros)
    assert images.shape == (3, 1, 28, 28) and not torch.allclose(images, pair.generate(noise, ones), atol=1e-4)
    assert torch.equal(images, pair.generate(noise, zeros)) and float(images.abs().max()) <= 1
    scores = pair.discriminator(images, zeros)
    assert scores.shape == (3,) and not torch.allclose(scores, pair.discriminator(images, ones), atol=1e-4)
    for call in (lambda: pair(noise), lambda: pair.discriminator(images)):
        with pytest.raises(ValueError, match=r"expected one class for each image, \(3,\) int64, got none"):
            call()


def test_a_model_that_no_longer_learns_needs_no_iterations():
    pair = create_model("biggan_nano").eval()
    state = {name: tensor.clone() for name, tensor in pair.state_dict().items()}
    folded, noise, labels = fold_spectral_norms(pair), pair.sample_noise(2), torch.tensor([3, 9])
    assert torch.equal(folded(noise, labels), pair(noise, labels))
    assert torch.equal(
        folded.discriminator(folded(noise, labels), labels), pair.discriminator(pair(noise, labels), labels)
    )
    assert all(torch.equal(tensor, state[name]) for name, tensor in pair.state_dict().items())
    plain = create_model("dcgan_nano")
    assert fold_spectral_norms(plain) is plain


def test_truncated_noise_is_what_drawing_again_gives():
    pair = create_model("biggan_nano")
    noise = pair.sample_noise(4000, torch.Generator().manual_seed(0))
    for threshold in (0.5, 2.0):
        truncated = pair.truncate(noise, threshold)
        again = noise[noise.abs() <= threshold]  # what stays when larger numbers are thrown away
        assert float(truncated.abs().max()) <= threshold and truncated.dtype == noise.dtype
        assert torch.equal(truncated[:50].flatten().argsort(), noise[:50].flatten().argsort())
        for share in (0.1, 0.5, 0.9):
            expected = float(again[:200_000].quantile(share))
            assert float(truncated[:3000].quantile(share)) == pytest.approx(expected, abs=0.01 * threshold)
    torch.testing.assert_close(pair.truncate(noise, 20.0), noise)


@pytest.mark.parametrize("setting, words", [
    ({"noise": 61}, "noise is 61, expected a multiple of 3"),
    ({"image_size": 30}, "30 pixels is not halved evenly 2 times"),
    ({"halvings": 4}, "halvings is 4, expected 1 to 3"),
    ({"generator_attention": (2,)}, "generator_attention names block 2, expected 0 to 1"),
    ({"discriminator_widths": ()}, "discriminator_widths one or more"),
])  # fmt: skip
def test_networks_that_cannot_be_are_refused(setting, words):
    with pytest.raises(UsageError, match=words):
        create_model("biggan_nano", **setting)
