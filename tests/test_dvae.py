"""The dVAEs of DALL-E and of DALLE-pytorch beyond their cards' references: scores, densities, the relaxed choice."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from orchard.models import create_model
from orchard.models.latent.dvae import MARGIN, logit_laplace_loss
from orchard.weights.official import load_official

GOLDEN = Path(__file__).parent / "golden"


def test_golden_dalle_dvae():
    io = load_file(GOLDEN / "dalle_dvae" / "tiny_a" / "io.safetensors")
    model = create_model("dalle_dvae", codes=32, width=8, code_width=8, image_size=32).eval()
    load_official(model, load_file(GOLDEN / "dalle_dvae" / "tiny_a" / "params.safetensors"), "openai")
    with torch.no_grad():
        scores = model.quantizer.scores(model.features(io["in.x"]))
        stats = torch.cat(model.density(model.quantizer.lookup(io["in.z_idx"])), 1)
        drawn = model.decode(io["in.z_idx"])
    torch.testing.assert_close((1 - 2 * MARGIN) * io["in.x"] + MARGIN, io["out.x_mapped"])
    torch.testing.assert_close(scores, io["out.z_logits"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(stats, io["out.decoder_stats_of_z_idx"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(drawn, io["out.x_rec_of_z_idx"], atol=1e-6, rtol=1e-5)


def test_golden_discrete_vae_with_its_noise():
    io = load_file(GOLDEN / "dalle_pytorch" / "discrete_vae_a" / "io.safetensors")
    model = create_model("discrete_vae", codes=40, code_width=16, width=16, image_size=32).eval()
    load_official(model, load_file(GOLDEN / "dalle_pytorch" / "discrete_vae_a" / "params.safetensors"), "dalle_pytorch")
    images = io["out.normed_image"]
    with torch.no_grad():
        torch.testing.assert_close(model.quantizer.scores(model.features(images)), io["out.logits"], atol=1e-5, rtol=0)
        assert torch.equal(model.encode(images).flatten(1), io["out.codebook_indices"])
        drawn = model.decode(io["in.image_tokens"].view(2, 4, 4))
        torch.testing.assert_close(drawn, io["out.decoded_tokens"], atol=1e-5, rtol=0)
        torch.manual_seed(31)
        found = model.train()(images)
    torch.testing.assert_close(found.images, io["out.recons_seed31"], atol=1e-5, rtol=0)
    torch.testing.assert_close((found.images - images).square().mean(), io["out.loss_seed31"])
    assert found.codebook_loss == 0


def test_the_density_of_pixels_sums_to_one():
    """Over all squeezed pictures from 0 to 1, whatever location and scale."""
    x = torch.linspace(1e-5, 1 - 1e-5, 200_001, dtype=torch.float64)
    for location, log_scale in ((0.0, 0.0), (0.7, -0.5)):
        density = [math.exp(-_nll(v, location, log_scale)) for v in x[::200].tolist()]
        assert sum(density) / len(density) == pytest.approx(1, abs=0.01)
    images = torch.rand(2, 1, 4, 4)
    squeezed = ((1 - 2 * MARGIN) * images + MARGIN).flatten().tolist()
    wanted = sum(_nll(v, 0.3, -0.2) for v in squeezed) / len(squeezed)
    found = logit_laplace_loss(images, torch.full_like(images, 0.3), torch.full_like(images, -0.2))
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def _nll(x: float, location: float, log_scale: float) -> float:
    scale = math.exp(log_scale)
    density = math.exp(-abs(math.log(x / (1 - x)) - location) / scale) / (2 * scale * x * (1 - x))
    return -math.log(density)


def test_divergence_is_zero_for_even_scores_and_log_k_for_certain_ones():
    model = create_model("discrete_vae_nano", kl_weight=1.0).eval()
    scores = model.quantizer.scores
    torch.nn.init.zeros_(scores.weight)
    torch.nn.init.zeros_(scores.bias)
    images = torch.randn(1, 1, 28, 28)
    assert model(images).codebook_loss.item() == pytest.approx(0, abs=1e-5)
    scores.bias.data[3] = 100
    assert model(images).codebook_loss.item() == pytest.approx(math.log(128), rel=1e-5)
    assert (model.encode(images) == 3).all()


@pytest.mark.parametrize("name", ["dalle_dvae_nano", "discrete_vae_nano"])
def test_learns_with_a_gradient_for_every_parameter(name):
    torch.manual_seed(0)
    model = create_model(name).train()
    size = model.config.image_size
    images = torch.rand(4, 1, size, size)
    found = model(images)
    loss = found.density_loss if found.density_loss is not None else (found.images - images).square().mean()
    (loss + found.codebook_loss).backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not still
    for parameter, _ in model.named_parameters():
        assert sum(parameter.startswith(group) for group in model.layer_groups()) == 1, parameter
    low, high = model.value_range
    with torch.no_grad():
        found = model.eval()(images)
        assert torch.equal(model.decode(model.encode(images)), found.images)
    if name == "dalle_dvae_nano":
        assert low <= found.images.min() <= found.images.max() <= high
    with pytest.raises(ValueError, match=f"multiples of {model.stride}"):
        model(images[:, :, :-1])
