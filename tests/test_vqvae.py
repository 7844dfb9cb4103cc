"""VQ-VAE: Sonnet's quantizers, the encoder and decoder of a published VQ-VAE-2, and how idle codes start anew."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.models import create_model
from orchard.nn.quantizer import CodeRestart, EmaQuantizer, VectorQuantizer, nearest_codes

GOLDEN = Path(__file__).parent / "golden" / "vqvae"


def places_last(x: Tensor) -> Tensor:
    """Theirs are (B, h, w, D), ours (B, D, h, w)."""
    return x.movedim(1, -1)


@pytest.fixture(scope="module")
def sonnet() -> tuple[Tensor, dict[str, Tensor]]:
    folder = GOLDEN / "sonnet_quantizers"
    return load_file(folder / "params.safetensors")["embeddings"].T, load_file(folder / "io.safetensors")


def test_golden_quantizer(sonnet):
    codebook, io = sonnet
    quantizer = VectorQuantizer(9, 5, beta=0.25, beta_on="commitment", spread=1.0)
    quantizer.load_state_dict({"codebook": codebook})
    vectors = io["in.x"].movedim(-1, 1).clone().requires_grad_()
    found = quantizer(vectors)
    assert torch.equal(found.codes, io["out.plain.encoding_indices"])
    torch.testing.assert_close(places_last(found.vectors), io["out.plain.quantize"])
    torch.testing.assert_close(found.loss, io["out.plain.loss"])
    (found.loss + found.vectors.square().mean()).backward()
    torch.testing.assert_close(places_last(vectors.grad), io["out.plain.grad.x"], atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(quantizer.codebook.grad.T, io["out.plain.grad.embeddings"], atol=1e-7, rtol=1e-4)


def test_golden_moving_averages(sonnet):
    codebook, io = sonnet
    quantizer = EmaQuantizer(9, 5, beta=0.25, decay=0.9, eps=1e-5, spread=1.0)
    quantizer.codebook.copy_(codebook)
    for step, name in ((1, "in.x"), (2, "in.x2")):
        found = quantizer(io[name].movedim(-1, 1))
        case = f"out.ema.step{step}."
        assert torch.equal(found.codes, io[case + "encoding_indices"])
        torch.testing.assert_close(places_last(found.vectors), io[case + "quantize"])
        torch.testing.assert_close(found.loss, io[case + "loss"])
        torch.testing.assert_close(quantizer.codebook.T, io[case + "embeddings"], atol=1e-5, rtol=1e-4)
        started = 1 - 0.9**step
        torch.testing.assert_close(quantizer.counts / started, io[case + "ema_cluster_size"])
        torch.testing.assert_close(quantizer.sums.T / started, io[case + "ema_dw"], atol=1e-6, rtol=1e-5)
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    quantizer.eval()(io["in.x"].movedim(-1, 1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in quantizer.state_dict().items())


def test_encoder_and_decoder_are_the_lower_level_of_a_published_vqvae_2():
    theirs, io = (load_file(GOLDEN / "vqvae2" / f"{part}.safetensors") for part in ("params", "io"))
    model = create_model("vqvae_32", width=16, residual_width=8, code_width=12, codes=12)
    copy_level(model.encoder, theirs, "enc_b.blocks.")
    copy_level(model.decoder, theirs, "dec.blocks.")
    upsample = nn.ConvTranspose2d(6, 6, 4, stride=2, padding=1)
    upsample.load_state_dict({part: theirs[f"upsample_t.{part}"] for part in ("weight", "bias")})
    with torch.no_grad():
        torch.testing.assert_close(model.encoder(io["in.image"]), io["out.enc_b"], atol=1e-5, rtol=1e-4)
        drawn = model.decoder(torch.cat([upsample(io["out.quant_t"]), io["out.quant_b"]], 1))
    torch.testing.assert_close(drawn, io["out.decoded"], atol=1e-5, rtol=1e-4)


def copy_level(ours: nn.Sequential, theirs: dict[str, Tensor], prefix: str) -> None:
    """The layers are the same, in the same order; residual blocks call their convolutions otherwise."""
    state = {}
    for key in ours.state_dict():
        name = key.replace("conv1", "conv.1").replace("conv2", "conv.3")
        state[key] = theirs.pop(prefix + name)
    ours.load_state_dict(state)
    assert not [name for name in theirs if name.startswith(prefix)]


@pytest.mark.parametrize("decay", [None, 0.99])
def test_shapes_round_trip_and_gradient_through_the_choice(decay):
    torch.manual_seed(0)
    model = create_model("vqvae_nano", decay=decay).eval()
    images = torch.randn(3, 1, 28, 28)
    found = model(images)
    assert found.codes.shape == (3, 7, 7) and found.images.shape == images.shape
    assert torch.equal(model.encode(images), found.codes)
    torch.testing.assert_close(model.decode(found.codes), found.images, atol=1e-5, rtol=1e-5)
    assert model.code_vectors.shape == (64, 16)
    (found.images.square().mean() + found.codebook_loss).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
    for name, _ in model.named_parameters():
        assert sum(name.startswith(group) for group in model.layer_groups()) == 1, name


def test_the_choice_is_exact_under_autocast():
    torch.manual_seed(0)
    vectors, codebook = torch.randn(2, 8, 5, 5), torch.randn(40, 8)
    wanted = (vectors.movedim(1, -1)[..., None, :] - codebook).square().sum(-1).argmin(-1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest_codes(vectors, codebook), wanted)


@pytest.mark.parametrize("kind", ["loss", "averages"])
def test_idle_codes_start_anew_where_they_are_wanted(kind):
    torch.manual_seed(0)
    quantizer = (
        VectorQuantizer(8, 2, beta=0.25, beta_on="commitment", spread=0.01)
        if kind == "loss"
        else EmaQuantizer(8, 2, beta=0.25, decay=0.9, eps=1e-5, spread=0.01)
    )
    restart = CodeRestart(8, patience=3)
    centres = torch.randn(8, 2) * 10
    used, errors = [], []
    for _ in range(12):
        vectors = centres[torch.randint(8, (64,))].T.view(1, 2, 8, 8) + 0.1 * torch.randn(1, 2, 8, 8)
        codes = quantizer(vectors).codes
        errors.append(float((vectors - quantizer.lookup(codes)).detach().square().mean()))
        restart(quantizer, vectors, codes)
        used.append(len(codes.unique()))
    assert used[0] < 8 and used[-1] == 8
    assert restart.idle.max() < 3
    assert errors[-1] < 0.2 * errors[0]
