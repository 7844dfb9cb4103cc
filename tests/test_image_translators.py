"""pix2pix, CycleGAN and U-GAT-IT: official sizes and names, the function and the state that official layers have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchard.cards import card_of
from orchard.errors import UsageError
from orchard.models import create_model
from orchard.nn.torch_spectral_norm import TorchSpectralConv2d
from orchard.weights.adapters.attending_translator import ADAPTER, judge_of
from orchard.weights.golden import GOLDEN, read_golden
from orchard.weights.official import export_official, load_official

SMALL_PIX2PIX: dict[str, Any] = {
    "image_size": 64, "in_channels": 2, "levels": 6, "width": 3, "discriminator_width": 4, "discriminator_layers": 3,
}  # fmt: skip
SMALL_CYCLEGAN: dict[str, Any] = {
    "image_size": 32, "blocks": 2, "width": 4, "discriminator_width": 5, "discriminator_layers": 3,
}  # fmt: skip


class Wrapped(nn.Module):
    """Layers under the name `model`, which official modules have; `reads` is put before what they give."""

    def __init__(self, *layers: nn.Module, reads: bool = False):
        super().__init__()
        self.model = nn.Sequential(*layers)
        self.reads = reads

    def forward(self, x: Tensor) -> Tensor:
        # The first layer of a block is a leaky ReLU in place: what is handed on is what that has made of it.
        given = nn.functional.leaky_relu(x, 0.2) if self.reads else x
        return torch.cat([given, self.model(x)], 1) if self.reads else self.model(x)


def official_unet(levels: int, width: int, inputs: int, outputs: int) -> nn.Module:
    """Blocks in blocks, made from the smallest outwards."""
    widths = [width * min(2**n, 8) for n in range(levels)]

    def down(n: int) -> nn.Module:
        return nn.Conv2d(widths[n - 1] if n else inputs, widths[n], 4, 2, 1, bias=False)

    def up(n: int, read: int) -> nn.Module:
        return nn.ConvTranspose2d(read, widths[n - 1] if n else outputs, 4, 2, 1, bias=n == 0)

    n = levels - 1
    block = Wrapped(nn.LeakyReLU(0.2), down(n), nn.ReLU(), up(n, widths[n]), nn.BatchNorm2d(widths[n - 1]), reads=True)
    for n in reversed(range(1, levels - 1)):
        dropout = [nn.Dropout(0.5)] if n >= 4 else []
        block = Wrapped(
            nn.LeakyReLU(0.2), down(n), nn.BatchNorm2d(widths[n]), block, nn.ReLU(), up(n, 2 * widths[n]),
            nn.BatchNorm2d(widths[n - 1]), *dropout, reads=True,
        )  # fmt: skip
    whole = Wrapped()
    whole.model = Wrapped(down(0), block, nn.ReLU(), up(0, 2 * widths[0]), nn.Tanh())  # type: ignore[assignment]
    return whole


def official_resnet(blocks: int, width: int, channels: int) -> nn.Module:
    def norm(width: int) -> nn.Module:
        return nn.InstanceNorm2d(width, affine=False, track_running_stats=False)

    class Residual(nn.Module):
        def __init__(self, width: int):
            super().__init__()
            half = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), norm(width)]
            other = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), norm(width)]
            self.conv_block = nn.Sequential(*half, nn.ReLU(), *other)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv_block(x)  # type: ignore[no-any-return]

    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(channels, width, 7), norm(width), nn.ReLU()]
    for n in range(2):
        layers += [nn.Conv2d(width << n, width << n + 1, 3, 2, 1), norm(width << n + 1), nn.ReLU()]
    layers += [Residual(4 * width) for _ in range(blocks)]
    for n in (1, 0):
        doubled = nn.ConvTranspose2d(width << n + 1, width << n, 3, 2, 1, output_padding=1)
        layers += [doubled, norm(width << n), nn.ReLU()]
    return Wrapped(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, channels, 7), nn.Tanh())


def official_patches(inputs: int, width: int, norm: Callable[[int], nn.Module], bias: bool) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(inputs, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for n, stride in ((1, 2), (2, 2), (3, 1)):
        conv = nn.Conv2d(width << n - 1, width << n, 4, stride, 1, bias=bias)
        layers += [conv, norm(width << n), nn.LeakyReLU(0.2)]
    return Wrapped(*layers, nn.Conv2d(width << 3, 1, 4, 1, 1))


def varied(model: nn.Module) -> None:
    """Random weights and statistics everywhere, so that nothing agrees by being zero or one."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                drawn = torch.rand_like(tensor) + 0.2 if tensor.ndim == 1 else torch.randn_like(tensor)
                tensor.copy_(drawn * 0.3)


def together(networks: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {f"{name}.{key}": one for name, net in networks.items() for key, one in net.state_dict().items()}


def test_sizes_are_the_official_ones() -> None:
    with torch.device("meta"):
        pix2pix: Any = create_model("pix2pix")
        nine: Any = create_model("cyclegan")
        six: Any = create_model("cyclegan_6blocks")

    def count(model: nn.Module) -> int:
        return sum(p.numel() for p in model.parameters())

    assert (count(pix2pix.generator), count(pix2pix.discriminator)) == (54_413_955, 2_768_705)
    assert (count(nine.generators["AtoB"]), count(six.generators["BtoA"])) == (11_378_179, 7_837_699)
    assert count(nine.discriminators["A"]) == 2_764_737
    scores = pix2pix.discriminator(torch.empty(1, 6, 256, 256, device="meta"))
    assert scores.shape == (1, 1, 30, 30)
    names = export_official(pix2pix, "junyanz")
    assert names["generator.model.model.1.model.3.model.1.weight"].shape == (256, 128, 4, 4)
    assert names["generator.model.model.3.bias"].shape == (3,)
    names = export_official(nine, "junyanz")
    assert names["G_A.model.26.weight"].shape == (3, 64, 7, 7) and names["D_B.model.11.weight"].shape == (1, 512, 4, 4)
    assert names["G_B.model.18.conv_block.5.weight"].shape == (256, 256, 3, 3)


def test_a_score_sees_seventy_pixels() -> None:
    torch.manual_seed(0)
    model: Any = create_model("pix2pix", width=2, discriminator_width=4).eval()
    images = torch.randn(1, 6, 256, 256, requires_grad=True)
    model.discriminator(images)[0, 0, 15, 15].backward()
    seen = images.grad.abs().sum((0, 1))  # type: ignore[union-attr]
    assert (int((seen.sum(0) > 0).sum()), int((seen.sum(1) > 0).sum())) == (70, 70)


def test_pix2pix_computes_what_official_layers_do() -> None:
    torch.manual_seed(0)
    theirs = {"generator": official_unet(6, 3, 2, 3), "discriminator": official_patches(5, 4, nn.BatchNorm2d, False)}
    ours: Any = create_model("pix2pix", **SMALL_PIX2PIX, dropout=0.0)
    for network in theirs.values():
        varied(network)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    went = load_official(ours, together(theirs), "junyanz")
    assert went.keys() == ours.state_dict().keys()
    images = torch.randn(2, 2, 64, 64)
    made = ours.train()(images)
    torch.testing.assert_close(made, theirs["generator"](images), atol=1e-5, rtol=0)
    pair = torch.cat([images, made.detach()], 1)
    torch.testing.assert_close(ours.discriminator(pair), theirs["discriminator"](pair), atol=1e-5, rtol=0)
    # In evaluation an image is normalised by itself: what theirs does in training with a batch of one.
    alone = torch.cat([theirs["generator"](image[None]) for image in images])
    torch.testing.assert_close(ours.eval()(images), alone, atol=1e-5, rtol=0)


def test_pix2pix_has_dropout_where_the_official_network_has() -> None:
    with torch.device("meta"):
        for name, places in (("pix2pix", [4, 5, 6]), ("pix2pix_unet128", [4, 5]), ("pix2pix_nano", [4])):
            model: Any = create_model(name)
            assert [n for n, one in enumerate(model.generator.drops) if isinstance(one, nn.Dropout)] == places


def test_cyclegan_computes_what_official_layers_do() -> None:
    torch.manual_seed(0)
    theirs = {name: official_resnet(2, 4, 3) for name in ("G_A", "G_B")}
    theirs |= {name: official_patches(3, 5, nn.InstanceNorm2d, True) for name in ("D_A", "D_B")}
    for network in theirs.values():
        varied(network)
    ours: Any = create_model("cyclegan", **SMALL_CYCLEGAN).eval()
    load_official(ours, together(theirs), "junyanz")
    a, b = torch.randn(2, 3, 32, 40), torch.randn(2, 3, 32, 32)
    found = ours(a, b)
    torch.testing.assert_close(found.to_b, theirs["G_A"](a), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.to_a, theirs["G_B"](b), atol=1e-5, rtol=0)
    # D_A judges what G_A makes, which are images of B.
    torch.testing.assert_close(ours.discriminators["B"](b), theirs["D_A"](b), atol=1e-5, rtol=0)


def test_old_files_with_statistics_of_instance_norms_are_read() -> None:
    ours = create_model("cyclegan", **SMALL_CYCLEGAN)
    old = export_official(ours, "junyanz") | {"G_A.model.2.running_mean": torch.zeros(4)}
    fresh = create_model("cyclegan", **SMALL_CYCLEGAN)
    load_official(fresh, old, "junyanz")
    assert all(torch.equal(one, ours.state_dict()[name]) for name, one in fresh.state_dict().items())


def test_sizes_that_do_not_fit_are_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"\w+: image_size is 96, expected a multiple of 64"):
        create_model("pix2pix_nano", image_size=96)
    with pytest.raises(UsageError, match=r"\w+: image_size is 16; a patch discriminator with 3 layers needs 24 pixels"):
        create_model("cyclegan", image_size=16)
    model: Any = create_model("cyclegan", **SMALL_CYCLEGAN)
    with pytest.raises(ValueError, match=r"expected sides that are multiples of 4, got \(1, 3, 32, 30\)"):
        model.translate(torch.zeros(1, 3, 32, 30), "AtoB")
    pix2pix: Any = create_model("pix2pix", **SMALL_PIX2PIX)
    with pytest.raises(ValueError, match=r"expected the direction AtoB, got BtoA"):
        pix2pix.translate(torch.zeros(1, 2, 64, 64), "BtoA")


# U-GAT-IT


def test_attending_translators_have_the_official_sizes_and_names() -> None:
    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    with torch.device("meta"):
        full, light = (create_model(name) for name in ("ugatit", "ugatit_light"))
    sizes = [count(model.generators["AtoB"]) for model in (full, light)]  # type: ignore[index, union-attr]
    assert [round(size / 1e6, 2) for size in sizes] == [278.96, 10.59]
    judges: Any = full.discriminators["A"]  # type: ignore[index, union-attr]
    assert [round(count(judges[one]) / 1e6, 2) for one in ("global", "local")] == [53.13, 3.29]
    names = export_official(full, "znxlwm")
    assert names["genA2B.FC.0.weight"].shape == (256, 64 * 64 * 256)
    assert names["disGA.model.16.weight_orig"].shape == (2048, 1024, 4, 4)
    assert names["disLB.gmp_fc.weight_v"].shape == (512,) and names["genB2A.UpBlock2.8.rho"].shape == (1, 64, 1, 1)


def test_a_step_leaves_the_singular_vectors_and_rho_that_official_code_leaves() -> None:
    row = card_of("ugatit").references[1]
    case = ADAPTER.stored(read_golden(GOLDEN / "ugatit/tiny_light_a"))
    model: Any = create_model(row.variant, **row.ours).train()
    load_official(model, case.state, "znxlwm")
    model.settle()
    judge_of(model)(case.given("xd"))
    found = export_official(model, "znxlwm")
    vectors, clipped = case.below("train.after.d"), case.below("rho_clipped")
    assert len(vectors) == 14 and len(clipped) == 6
    for name, tensor in vectors.items():
        torch.testing.assert_close(found[f"disLB.{name}"], tensor, atol=1e-6, rtol=1e-5)
    assert any(not torch.equal(case.state[f"genA2B.{name}"], tensor) for name, tensor in clipped.items())
    assert all(torch.equal(found[f"genA2B.{name}"], tensor) for name, tensor in clipped.items())


def test_a_spectral_norm_as_torch_has_it_iterates_in_training_alone_and_in_float32() -> None:
    torch.manual_seed(0)
    ours = TorchSpectralConv2d(3, 4, 3, stride=2, padding=1, padding_mode="reflect", bias=True)
    theirs = nn.utils.spectral_norm(nn.Conv2d(3, 4, 3, 2, 1, padding_mode="reflect"))
    theirs.load_state_dict({"bias": ours.bias, "weight_orig": ours.weight, "weight_u": ours.u, "weight_v": ours.v})
    x = torch.randn(2, 3, 8, 8)
    for training in (True, True, False):
        before = ours.u.clone()
        found, expected = (layer.train(training)(x) for layer in (ours, theirs))
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(ours.v, theirs.weight_v, atol=1e-6, rtol=1e-5)
        assert torch.equal(before, ours.u) != training
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x).dtype == torch.bfloat16 and ours.normalised().dtype == torch.float32


def test_attending_translators_that_do_not_fit_are_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"image_size is 64; a discriminator with 7 layers needs 96 pixels a side"):
        create_model("ugatit", image_size=64)
    with pytest.raises(UsageError, match=r"quantize names block 6, expected 0 to 5"):
        create_model("ugatit", quantize=(6,))
    small = {"blocks": 1, "width": 2, "discriminator_width": 2, "global_layers": 4, "local_layers": 3}
    full, light = (create_model(name, image_size=16, **small) for name in ("ugatit", "ugatit_light"))
    wide = torch.zeros(1, 3, 16, 20)
    with pytest.raises(ValueError, match=r"expected pictures of shape \(B, 3, 16, 16\), got \(1, 3, 16, 20\)"):
        full.translate(wide, "AtoB")  # type: ignore[operator]
    assert light.translate(wide, "BtoA").shape == wide.shape  # type: ignore[operator]
