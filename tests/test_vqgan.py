"""VQGAN and the task that trains it: the official code's figures and gradients, its names, and what is promised."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from orchard.data.batches import ImageBatch
from orchard.errors import OrchardError, UsageError
from orchard.models import create_model, landmark_of
from orchard.models.latent.vqgan import VQGAN
from orchard.nn.patch_discriminator import PatchDiscriminator
from orchard.nn.perceptual import Lpips
from orchard.nn.quantizer import VectorQuantizer
from orchard.tasks.image_tokenization.objective import (
    ImageTokenization,
    TokenizationSettings,
    TokenizerTraining,
    read_perceptual,
    tokenizer_training,
)
from orchard.weights.names import to_ours
from orchard.weights.official import export_official, load_official

GOLDEN = Path(__file__).parent / "golden" / "vqgan"
TINY = dict(codes=64, multipliers=(1, 2, 2), attention_at=(16,), image_size=64, width=32, blocks=1, groups=32)
SCALARS = dict(atol=1e-6, rtol=1e-5)


@pytest.fixture(scope="module")
def io() -> dict[str, Tensor]:
    return load_file(GOLDEN / "tiny_a" / "io.safetensors")


@pytest.fixture(scope="module")
def tokenizer() -> VQGAN:
    model = create_model("vqgan_f16_1024", **TINY, latent=32, code_width=32)
    load_official(model, load_file(GOLDEN / "tiny_a" / "params.safetensors"), "taming")
    return model.eval()


@pytest.fixture
def training(tokenizer: VQGAN) -> TokenizerTraining:
    loss = load_file(GOLDEN / "tiny_a" / "loss.safetensors")
    discriminator, perceptual = PatchDiscriminator(3, width=16, layers=3), Lpips((4, 8, 8, 12, 12))
    names = [("layers.{}", "loss.discriminator.main.{}")]
    discriminator.load_state_dict(
        to_ours(names, {k: v for k, v in loss.items() if ".discriminator." in k}, discriminator.state_dict())
    )
    perceptual.load(loss)
    return TokenizerTraining(tokenizer, discriminator, perceptual, None).eval()


def batch(images: Tensor) -> ImageBatch:
    return ImageBatch(images, torch.zeros(len(images), dtype=torch.int64), torch.arange(len(images)))


def test_golden_forward(io, tokenizer):
    with torch.no_grad():
        found = tokenizer(io["in.x"])
        encoded = tokenizer.encoder(io["in.x"])
        decoded = tokenizer.decode(io["in.code_idx"].view(2, 16, 16))
    assert torch.equal(found.codes.flatten(), io["out.indices"])
    assert torch.equal(tokenizer.encode(io["in.x"]), found.codes)
    for ours, name in (
        (encoded, "encoder_out"),
        (found.latents, "quant_conv_out"),
        (found.images, "reconstruction"),
        (tokenizer.quantizer(found.latents).vectors, "quant"),
        (tokenizer.quantizer.lookup(io["in.code_idx"].view(2, 16, 16)), "codebook_entry_of_code_idx"),
        (decoded, "decode_of_code_idx"),
    ):
        torch.testing.assert_close(ours.detach(), io[f"out.{name}"], atol=2e-5, rtol=0)


def test_golden_second_configuration():
    stored = load_file(GOLDEN / "artist_a" / "io.safetensors")
    model = create_model("vqgan_f16_1024", **TINY | dict(multipliers=(1, 1, 1)), latent=32, code_width=16).eval()
    load_official(model, load_file(GOLDEN / "artist_a" / "params.safetensors"), "taming")
    with torch.no_grad():
        assert torch.equal(model.encode(stored["in.x"]), stored["out.codes"])
        torch.testing.assert_close(model.decode(stored["in.codes"]), stored["out.decoded"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("beta_on, name", [("codebook", "legacy"), ("commitment", "not_legacy")])
def test_golden_codebook_loss_in_both_conventions(io, tokenizer, beta_on, name):
    quantizer = VectorQuantizer(64, 32, beta=0.25, beta_on=beta_on, spread=1.0)
    quantizer.load_state_dict(tokenizer.quantizer.state_dict())
    latents = io["out.quant_conv_out"].clone().requires_grad_()
    loss = quantizer(latents).loss
    torch.testing.assert_close(loss, io[f"out.qloss_{name}"], **SCALARS)
    loss.backward()
    torch.testing.assert_close(latents.grad, io[f"out.grad_qloss_{name}.z"], atol=1e-9, rtol=1e-4)
    torch.testing.assert_close(quantizer.codebook.grad, io[f"out.grad_qloss_{name}.embedding"], atol=1e-8, rtol=1e-4)


def test_golden_perceptual_distance_and_discriminator(io, training):
    real, drawn = io["in.x"], io["out.reconstruction"]
    distance = training.perceptual(real, drawn)
    torch.testing.assert_close(distance, io["out.lpips_value"].flatten(), **SCALARS)
    for images, name in ((real, "real"), (drawn, "fake")):
        torch.testing.assert_close(
            training.discriminator(images), io[f"out.disc_logits_{name}_evalbn"], atol=1e-5, rtol=0
        )
    training.discriminator.train()
    for images, name in ((real, "real"), (drawn, "fake")):
        torch.testing.assert_close(
            training.discriminator(images), io[f"out.disc_logits_{name}_trainbn"], atol=1e-5, rtol=0
        )
    state = training.discriminator.state_dict()
    for key in (key for key in io if key.startswith("out.disc_after_real_then_fake.main.")):
        ours = state[key.replace("out.disc_after_real_then_fake.main", "layers")]
        torch.testing.assert_close(ours, io[key], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("step, when", [(99, "before"), (100, "after")])
def test_golden_losses_and_gradients_around_the_discriminator_s_start(io, training, step, when):
    task = ImageTokenization(TokenizationSettings(discriminator_start=100))
    drawing, judging = task.phases
    training.discriminator.requires_grad_(False)
    loss, figures = drawing.loss(training, batch(io["in.x"]), step)
    case = f"out.gen_{when}_disc_start."
    torch.testing.assert_close(loss, io[case + "total_loss"], **SCALARS)
    torch.testing.assert_close(figures["codebook_loss"], io[case + "quant_loss"], **SCALARS)
    torch.testing.assert_close(figures["perceptual_loss"], io[case + "p_loss"], **SCALARS)
    total = figures["pixel_loss"] + figures["perceptual_loss"]
    torch.testing.assert_close(total, io[case + "nll_loss"], **SCALARS)
    if when == "after":
        torch.testing.assert_close(figures["adversarial_loss"], io[case + "g_loss"], **SCALARS)
        torch.testing.assert_close(0.8 * figures["adaptive_weight"], io[case + "d_weight"], atol=0, rtol=1e-4)
    tokenizer = training.tokenizer
    parameters = {
        "decoder.conv_out.weight": tokenizer.decoder.conv_out.weight,
        "encoder.conv_in.weight": tokenizer.encoder.conv_in.weight,
        "quantize.embedding.weight": tokenizer.quantizer.codebook,
    }
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    for name, gradient in zip(parameters, gradients, strict=True):
        wanted = io[f"{case}grad.{name}"]
        assert (gradient - wanted).abs().max() <= 1e-4 * wanted.abs().max(), name

    training.discriminator.requires_grad_(True)
    loss, figures = judging.loss(training, batch(io["in.x"]), step)
    torch.testing.assert_close(loss, io[f"out.disc_{when}_disc_start.disc_loss"], **SCALARS)
    loss.backward()  # before its time too, so that the loop need not know
    if when == "after":
        torch.testing.assert_close(loss, io["out.hinge_d_loss_evalbn"], **SCALARS)
        torch.testing.assert_close(figures["score_real"], io["out.disc_after_disc_start.logits_real"], **SCALARS)
        torch.testing.assert_close(figures["score_fake"], io["out.disc_after_disc_start.logits_fake"], **SCALARS)


def test_official_names_at_full_size():
    keys = json.loads((GOLDEN / "official_checkpoint_keys.json").read_text())
    stated = keys["f16_16384 (disc_num_layers 2)"]
    smaller = stated | keys["f16_1024 (disc_num_layers 3), only keys that differ"]
    for name, known in (("vqgan_f16_16384", stated), ("vqgan_f16_1024", smaller)):
        with torch.device("meta"):
            model = create_model(name)
            theirs = {k: torch.empty(shape) for k, shape in known.items() if not k.startswith("loss.")}
            theirs = {k: v for k, v in theirs.items() if k not in keys["f16_1024 keys absent there"]}
        theirs |= {"quantize.embedding.weight": torch.empty(model.config.codes, 256, device="meta")}
        load = to_ours(landmark_of(name).names["taming"](model.config), theirs, model.state_dict())
        assert load.keys() == model.state_dict().keys()


def test_gumbel_names_and_evaluation_without_noise():
    torch.manual_seed(0)
    small = dict(multipliers=(1, 2), image_size=16, width=8, groups=8, latent=8, code_width=8, codes=12, blocks=1)
    model = create_model("vqgan_gumbel_f8", **small).eval()
    theirs = export_official(model, "taming")
    assert {"quantize.proj.weight", "quantize.proj.bias", "quantize.embed.weight"} <= theirs.keys()
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(images).images, model.decode(model.encode(images)))
    found = model.train()(images)
    assert not torch.equal(found.images, model(images).images)
    assert found.codebook_loss > 0


@pytest.mark.parametrize("channels, size", [(1, 28), (3, 32)])
def test_nano_takes_grey_and_colour(channels, size):
    torch.manual_seed(0)
    model = create_model("vqgan_nano", in_channels=channels, image_size=size).eval().double()  # z + (q - z) is not q
    images = torch.randn(2, channels, size, size, dtype=torch.float64)
    with torch.no_grad():
        found = model(images)
        assert found.codes.shape == (2, size // 4, size // 4) and found.codes.dtype == torch.int64
        assert torch.equal(model.encode(images), found.codes)
        torch.testing.assert_close(model.decode(found.codes), found.images, atol=1e-5, rtol=1e-5)
    assert found.images.shape == images.shape
    assert model.code_vectors.shape == (128, 8)


def test_wrong_input_is_named():
    model = create_model("vqgan_nano")
    with pytest.raises(ValueError, match=r"multiples of 4, got \(1, 3, 30, 32\)"):
        model(torch.zeros(1, 3, 30, 32))
    with pytest.raises(ValueError, match="from 0 to 127, got 0 to 128"):
        model.decode(torch.tensor([[[0, 128]]]))
    with pytest.raises(ValueError, match=r"\(B, h, w\) int64"):
        model.decode(torch.zeros(1, 8, 8))
    with pytest.raises(UsageError, match="does not divide into 8 groups"):
        create_model("vqgan_nano", width=12)
    with pytest.raises(UsageError, match="latent = code_width"):
        create_model("vqgan_nano", quantizer="gumbel")


def learn(task: ImageTokenization, training: TokenizerTraining, data: Tensor, steps: int) -> None:
    optimizers = [
        torch.optim.Adam([p for n, p in training.named_parameters() if n.startswith(phase.parameters)], lr=2e-3)
        for phase in task.phases
    ]
    training.train()
    for step in range(steps):
        images = data[torch.randint(len(data), (16,))]
        for phase, optimizer in zip(task.phases, optimizers, strict=True):
            for name, parameter in training.named_parameters():
                parameter.requires_grad_(name.startswith(phase.parameters))
            loss, outputs = phase.loss(training, batch(images), step)
            assert not any(figure.requires_grad for figure in outputs.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def blobs(count: int, size: int = 16) -> Tensor:
    """Coloured discs on white."""
    places = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).float()
    centres, radii = torch.rand(count, 2, 1, 1) * size, torch.rand(count, 1, 1) * size / 3 + 2
    inside = ((places - centres).norm(dim=1) < radii)[:, None]
    return torch.where(inside, torch.rand(count, 3, 1, 1) * 2 - 1, torch.ones(()))


def test_both_phases_learn_and_the_codebook_is_used():
    torch.manual_seed(0)
    settings = TokenizationSettings(
        discriminator_start=15, discriminator_layers=1, discriminator_width=8, restart_after=5
    )
    task = ImageTokenization(settings)
    training = tokenizer_training(create_model("vqgan_nano", image_size=16, codes=32), settings)
    data = torch.minimum(blobs(64), blobs(64))
    before = task.compute_metrics(training.eval(), [batch(data)])
    learn(task, training, data, 30)
    after = task.compute_metrics(training.eval(), [batch(data[:32]), batch(data[32:])])
    assert after["psnr"] > before["psnr"] + 2
    assert after["codebook_use"] >= 0.8 > before["codebook_use"]
    assert 1 < after["code_perplexity"] <= 32 and 0 < after["ssim"] <= 1 and after["l1"] < before["l1"]
    assert after.keys() <= set(task.logged)


def test_score_of_a_tokenizer_alone_is_that_of_its_training():
    torch.manual_seed(0)
    settings = TokenizationSettings(discriminator_weight=0)
    task, model, data = (
        ImageTokenization(settings),
        create_model("vqgan_nano").eval(),
        [batch(torch.rand(2, 3, 32, 32))],
    )
    assert [phase.name for phase in task.phases] == ["tokenizer"]
    assert task.compute_metrics(model, data) == task.compute_metrics(tokenizer_training(model, settings).eval(), data)


def test_groups_cover_the_training():
    training = tokenizer_training(create_model("vqgan_nano"), TokenizationSettings())
    for name, _ in training.named_parameters():
        assert sum(name.startswith(group) for group in training.layer_groups()) == 1, name


def test_without_perceptual_weights_training_works_and_says_so():
    assert "perceptual_files" in ImageTokenization(TokenizationSettings()).remarks[0]
    assert not ImageTokenization(TokenizationSettings(perceptual_weight=0)).remarks


def test_perceptual_weights_come_from_official_files(tmp_path):
    generator = torch.Generator().manual_seed(0)
    flat, lins, place = {}, {}, 0
    for n, (inputs, width, convs) in enumerate(
        zip((3, 64, 128, 256, 512), (64, 128, 256, 512, 512), (2, 2, 3, 3, 3), strict=True)
    ):
        for k in range(convs):
            shape = (width, width if k else inputs, 3, 3)
            flat[f"features.{place}.weight"] = torch.randn(shape, generator=generator) * 0.02
            flat[f"features.{place}.bias"] = torch.zeros(width)
            place += 2
        place += 1
        lins[f"lin{n}.model.1.weight"] = torch.rand(1, width, 1, 1, generator=generator)
    save_file(flat, tmp_path / "vgg16.safetensors")
    save_file(lins, tmp_path / "lpips.safetensors")
    perceptual = read_perceptual([tmp_path / "vgg16.safetensors", tmp_path / "lpips.safetensors"])
    assert torch.equal(perceptual.stages[4][5].weight, flat["features.28.weight"])
    assert torch.equal(perceptual.weights[2], lins["lin2.model.1.weight"].flatten())
    assert not any(p.requires_grad for p in perceptual.parameters())
    grey = torch.zeros(1, 1, 32, 32, requires_grad=True)
    perceptual(grey, torch.ones(1, 1, 32, 32)).sum().backward()
    assert grey.grad.isfinite().all()
    with pytest.raises(OrchardError, match=r"no tensor 'lin0.model.1.weight' of LPIPS"):
        read_perceptual([tmp_path / "vgg16.safetensors"])
