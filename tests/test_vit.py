"""ViT: the golden cases, the three PyTorch ports, the official names, and what the class promises beside forward."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.app.explain import explain
from orchard.app.train import pick_recipe, train
from orchard.cards import card_of
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load as load_run
from orchard.models import create_model, landmark_of
from orchard.models.vision.vit import VARIANTS, ViT, ViTConfig
from orchard.nn.position import resize_position_grid
from orchard.nn.std_conv import SameMaxPool2d, StdConv2d, pad_same
from orchard.tasks.image_classification.explain.attributions import attention_rollout
from orchard.weights.names import to_ours, to_theirs
from orchard.weights.official import export_official, load_official

GOLDEN = Path(__file__).parent / "golden" / "vit"
TINY = dict(width=48, depth=2, heads=3, patch=8, image_size=32, num_classes=10)
CASES = {
    "google_flax_token": ("google", ViTConfig(**TINY, mlp_ratio=2, tanh_gelu=True)),
    "google_flax_gap_prelogits": (
        "google",
        ViTConfig(
            **TINY | dict(image_size=(24, 40)),
            mlp_ratio=2,
            tanh_gelu=True,
            class_token=False,
            pool="mean",
            pre_logits=20,
        ),
    ),
    "google_flax_hybrid": (
        "google",
        ViTConfig(
            **TINY | dict(image_size=(32, 48), patch=1),
            mlp_ratio=2,
            tanh_gelu=True,
            stem_stages=(1, 1),
            stem_width=32,
        ),
    ),
    "timm_token": ("timm", ViTConfig(**TINY)),
    "timm_gap": (
        "timm",
        ViTConfig(width=32, depth=1, heads=2, patch=16, image_size=32, num_classes=5, pool="mean_norm"),
    ),
}


def names(source: str, config: ViTConfig) -> list:
    return landmark_of("vit_nano").names[source](config)


def load(model: ViT, source: str, theirs: dict[str, Tensor]) -> ViT:
    model.load_state_dict(to_ours(names(source, model.config), theirs, model.state_dict()))
    return model.eval()


def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Nothing stays at 0 or 1, so that no tensor can be forgotten or taken for another unseen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.02 if parameter.ndim > 1 else 0.2
            parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, spread, generator=generator)
            if parameter.ndim == 2:
                parameter.mul_(1 / (spread * math.sqrt(parameter.shape[1])))
    return model.eval()


def images(config: ViTConfig, batch: int = 2) -> Tensor:
    return torch.randn(batch, config.in_channels, *config.image_hw, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    source, config = CASES[case]
    tolerance = json.loads((GOLDEN / case / "meta.json").read_text())["tolerance"]
    tensors = load_file(GOLDEN / case / "io.safetensors")
    theirs = load_file(GOLDEN / case / "params.safetensors")
    model = load(ViT(config), source, theirs)

    seen: dict[str, Tensor] = {}
    watched = {
        "patch_embed": "feat.embedding",
        "norm": "feat.Transformer/encoder_norm",
        "dropout": "feat.Transformer/posembed_input",
    }
    watched |= {f"blocks.{i}": f"feat.Transformer/encoderblock_{i}" for i in range(config.depth)}
    if config.stem_stages:
        watched |= {"stem.conv": "feat.conv_root", "stem.norm": "feat.gn_root"}
        watched |= {f"stem.stages.{i}": f"feat.block{i + 1}" for i in range(len(config.stem_stages))}
    if config.pre_logits:
        watched |= {"pre_logits": "feat.pre_logits"}  # before the tanh
    if source == "timm":
        watched = {f"blocks.{i}": f"block_{i}" for i in range(config.depth)}
    for ours, theirs_name in watched.items():
        model.get_submodule(ours).register_forward_hook(lambda _m, _i, out, key=theirs_name: seen.__setitem__(key, out))

    picture = tensors["in.images"] if source == "timm" else tensors["in.images_nhwc"].permute(0, 3, 1, 2)
    with torch.no_grad():
        seen["logits"] = model(picture)
        if source == "timm":
            seen["features_after_norm"] = model.features(picture)
    wanted = {key.removeprefix("out."): value for key, value in tensors.items() if key.startswith("out.")}
    if not config.pre_logits:
        wanted.pop("feat.pre_logits", None)  # without that layer it is the class token of the last norm
    assert seen.keys() == wanted.keys()
    for key, value in wanted.items():
        ours = seen[key].permute(0, 2, 3, 1) if seen[key].ndim == 4 else seen[key]
        torch.testing.assert_close(ours, value, **tolerance, msg=lambda text, key=key: f"{key}: {text}")


def test_golden_position_table() -> None:
    meta = json.loads((GOLDEN / "posembed_resize" / "meta.json").read_text())
    tensors = load_file(GOLDEN / "posembed_resize" / "io.safetensors")
    for n, case in enumerate(meta["constructor"]):
        old, new = (case["old_grid"],) * 2, (case["new_grid"],) * 2
        resized = resize_position_grid(tensors[f"in.posemb{n}"], old, new, int(case["has_class_token"]))
        torch.testing.assert_close(resized, tensors[f"out.resized{n}"], **meta["tolerance"])


SMALL = [
    ViTConfig(width=48, depth=2, heads=3, patch=8, image_size=32, num_classes=7),
    ViTConfig(
        width=64, depth=3, heads=4, patch=4, image_size=16, num_classes=5, in_channels=3, mlp_ratio=2, pre_logits=24
    ),
]


def timm_model(c: ViTConfig) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=c.image_hw,
        patch_size=c.patch,
        in_chans=c.in_channels,
        num_classes=c.num_classes,
        global_pool="token" if c.pool == "token" else "avg",
        fc_norm=c.pool == "mean_norm",
        class_token=c.class_token,
        embed_dim=c.width,
        depth=c.depth,
        num_heads=c.heads,
        mlp_ratio=c.mlp_ratio,
    )


@pytest.mark.parametrize(
    "config",
    [
        SMALL[0],
        ViTConfig(
            width=32,
            depth=2,
            heads=2,
            patch=4,
            image_size=(16, 24),
            in_channels=1,
            num_classes=3,
            class_token=False,
            pool="mean",
        ),
        ViTConfig(width=32, depth=2, heads=4, patch=8, image_size=24, num_classes=3, pool="mean_norm"),
    ],
)
def test_same_as_timm_with_gradients(config: ViTConfig) -> None:
    theirs = randomise(timm_model(config), seed=1)
    ours = load(ViT(config), "timm", theirs.state_dict())
    x = images(config).requires_grad_()
    y = x.detach().clone().requires_grad_()
    torch.testing.assert_close(ours(x), theirs(y), atol=1e-5, rtol=0)

    weights = torch.randn(2, config.num_classes, generator=torch.Generator().manual_seed(3))
    (ours(x) * weights).sum().backward()
    (theirs(y) * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, atol=1e-5, rtol=0)
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    translated = to_ours(names("timm", config), gradients, ours.state_dict())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad, translated[name], atol=1e-4, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("config", SMALL)
def test_same_as_torchvision(config: ViTConfig) -> None:
    from torchvision.models import VisionTransformer

    theirs = VisionTransformer(
        config.image_size,
        config.patch,
        config.depth,
        config.heads,
        config.width,
        int(config.width * config.mlp_ratio),
        num_classes=config.num_classes,
        representation_size=config.pre_logits or None,
    )
    randomise(theirs, seed=2)
    ours = load(ViT(config), "torchvision", theirs.state_dict())
    x = images(config)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "config",
    [
        ViTConfig(width=48, depth=2, heads=3, patch=8, image_size=32, num_classes=7, norm_eps=1e-12),
        ViTConfig(width=32, depth=3, heads=4, patch=4, image_size=(16, 24), in_channels=1, num_classes=5, mlp_ratio=2),
    ],
)
def test_same_as_transformers(config: ViTConfig) -> None:
    import transformers

    theirs = transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=int(config.width * config.mlp_ratio),
            image_size=config.image_size,
            patch_size=config.patch,
            num_channels=config.in_channels,
            num_labels=config.num_classes,
            layer_norm_eps=config.norm_eps,
        )
    )
    randomise(theirs, seed=3)
    ours = load(ViT(config), "hf", theirs.state_dict())
    x = images(config)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x).logits, atol=1e-5, rtol=0)


def test_reads_the_files_that_transformers_writes(tmp_path: Path) -> None:
    """On disk, as on the Hub, the names are still those of transformers 4."""
    import transformers

    theirs = transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            image_size=16,
            patch_size=8,
        )
    )
    randomise(theirs, seed=4)
    theirs.save_pretrained(tmp_path)
    config = ViTConfig(width=32, depth=2, heads=2, patch=8, image_size=16, num_classes=2, mlp_ratio=2, norm_eps=1e-12)
    ours = load(ViT(config), "hf4", load_file(tmp_path / "model.safetensors"))
    x = images(config)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("stages", [(1, 2), ()])
def test_hybrid_same_as_timm_but_for_epsilons(stages: tuple[int, ...]) -> None:
    """timm's epsilons differ (see the card): its norms get ours, and wide kernels make that of the kernels vanish."""
    from timm.models.vision_transformer import VisionTransformer
    from timm.models.vision_transformer_hybrid import HybridEmbed, _resnetv2

    patch = 1 if stages else 8
    config = ViTConfig(width=48, depth=2, heads=3, patch=patch, image_size=32, num_classes=7, stem_stages=stages)
    theirs = VisionTransformer(
        img_size=32,
        patch_size=patch,
        num_classes=7,
        embed_dim=48,
        depth=2,
        num_heads=3,
        embed_layer=lambda **kwargs: HybridEmbed(backbone=_resnetv2(stages), **kwargs),
    )
    randomise(theirs, seed=5)
    with torch.no_grad():
        for module in theirs.patch_embed.backbone.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(1e4)
            if isinstance(module, nn.GroupNorm):
                module.eps = 1e-6
    ours = load(ViT(config), "timm", theirs.state_dict())
    x = images(config)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("file", "variant"),
    [
        ("ViT-B_16", "vit_base_patch16_224"),
        ("ViT-B_32", "vit_base_patch32_224"),
        ("ViT-L_16", "vit_large_patch16_224"),
        ("ViT-H_14", "vit_huge_patch14_224"),
        ("R50+ViT-B_16", "vit_base_r50_s16_224"),
    ],
)
def test_official_names_and_shapes(file: str, variant: str) -> None:
    official = json.loads((GOLDEN / f"names_{file}.json").read_text())
    with torch.device("meta"):
        model = create_model(variant, num_classes=21843, pre_logits=VARIANTS[variant].width)
        theirs = {name: torch.empty(shape) for name, shape in official["tensors"].items()}
    assert sum(p.numel() for p in model.parameters()) == official["params_total"]
    table = names("google", model.config)
    to_ours(table, theirs, model.state_dict())
    back = {name: list(tensor.shape) for name, tensor in to_theirs(table, model.state_dict()).items()}
    assert back == official["tensors"]


def test_old_hybrid_files_keep_norms_in_four_dimensions() -> None:
    source, config = CASES["google_flax_hybrid"]
    theirs = load_file(GOLDEN / "google_flax_hybrid" / "params.safetensors")
    old = {k: v.reshape(1, 1, 1, -1) if "/gn" in k or k.startswith("gn_root") else v for k, v in theirs.items()}
    new = to_ours(names(source, config), theirs, ViT(config).state_dict())
    for name, tensor in to_ours(names(source, config), old, ViT(config).state_dict()).items():
        assert torch.equal(tensor, new[name])


@pytest.mark.parametrize("source", ["google", "timm", "torchvision", "hf", "hf4"])
def test_names_there_and_back(source: str) -> None:
    config = ViTConfig(width=48, depth=2, heads=3, patch=8, image_size=32, num_classes=7)
    state = randomise(ViT(config), seed=6).state_dict()
    theirs = to_theirs(names(source, config), state)
    back = to_ours(names(source, config), theirs, state)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    first = sorted(theirs)[0]
    with pytest.raises(OrchardError, match="left over"):
        to_ours(names(source, config), theirs | {"stranger": torch.zeros(1)}, state)
    with pytest.raises(OrchardError, match="has no"):
        to_ours(names(source, config), {k: v for k, v in theirs.items() if k != first}, state)


def test_source_of_a_hybrid_is_found_by_its_names() -> None:
    """Only two of the five tables know hybrids; the others must not stand in the way."""
    source, config = CASES["google_flax_hybrid"]
    theirs = load_file(GOLDEN / "google_flax_hybrid" / "params.safetensors")
    model = ViT(config)
    assert load_official(model, theirs)["stem.conv.weight"] == ("conv_root/kernel",)
    assert export_official(model, source).keys() == theirs.keys()


@pytest.mark.parametrize("source", ["torchvision", "hf", "hf4"])
def test_no_export_to_a_network_that_computes_something_else(source: str) -> None:
    with pytest.raises(OrchardError, match="no rule"):
        export_official(create_model("vit_nano"), source)


def test_weights_move_to_another_picture_size() -> None:
    small = ViTConfig(width=32, depth=1, heads=2, patch=4, image_size=16, num_classes=3)
    wide = ViTConfig(width=32, depth=1, heads=2, patch=4, image_size=(16, 24), num_classes=3)
    source = randomise(ViT(small), seed=8)
    model = ViT(wide)
    state = model.fit_state(source.state_dict(), small)
    model.load_state_dict(state)
    table = state["position"][0, 1:].reshape(4, 6, 32)
    grid = source.position[0, 1:].reshape(4, 4, 32)
    torch.testing.assert_close(table[:, [0, -1]], grid[:, [0, -1]])  # corners stay corners
    assert torch.equal(state["position"][0, 0], source.position[0, 0])
    assert model(images(wide)).shape == (2, 3)


@pytest.mark.parametrize("pool", ["token", "mean", "mean_norm"])
def test_attention_maps(pool: str) -> None:
    config = ViTConfig(width=32, depth=2, heads=2, patch=4, image_size=(8, 16), num_classes=3, pool=pool)
    model = randomise(ViT(config), seed=9)
    seen: list[Tensor] = []
    model.blocks[-1].attention.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    x = images(config)
    with torch.no_grad():
        model(x)
        maps = model.attention_maps(x)
        # The weights must be those that the fused attention used: values averaged with them give its output.
        attention = model.blocks[-1].attention
        _, _, values = attention.project_qkv(seen[0])
        mixed = (attention.weights(seen[0]) @ values).transpose(1, 2).flatten(2)
        torch.testing.assert_close(attention.out(mixed), attention(seen[0]), atol=1e-5, rtol=0)
    assert maps.shape == (2, 2, 2, 4)
    assert (maps >= 0).all() and (maps.sum((2, 3)) < 1).all()  # the class token has the rest


def test_starts_as_the_official_code_does() -> None:
    torch.manual_seed(0)
    model = create_model("vit_tiny_patch16_224")
    x = torch.randn(1, 3, 224, 224)
    assert torch.equal(model(x), torch.zeros(1, 1000))  # a head of zeros
    assert model.position.std().item() == pytest.approx(0.02, rel=0.02)
    assert torch.equal(model.class_token, torch.zeros(1, 1, 192))
    block = model.blocks[0]
    for matrix, fans in ((block.mlp.fc1.weight, 192 + 768), (block.attention.qkv.weight, 192 + 192)):
        assert matrix.abs().max().item() == pytest.approx(math.sqrt(6 / fans), rel=0.01)
    assert 0 < block.mlp.fc1.bias.abs().max() < 1e-5
    assert model.patch_embed.weight.std().item() == pytest.approx((3 * 16 * 16) ** -0.5, rel=0.02)


@pytest.mark.parametrize("case", ["timm_token", "timm_gap", "google_flax_hybrid"])
def test_exports_for_any_batch(case: str) -> None:
    model = randomise(ViT(CASES[case][1]), seed=10)
    program = torch.export.export(model, (images(model.config, 3),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    x = images(model.config, 2)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), atol=1e-5, rtol=0)


def test_same_padding_is_tensorflows() -> None:
    x = torch.arange(1.0, 17).reshape(1, 1, 4, 4)
    padded = pad_same(x, kernel=3, stride=2)
    assert padded.shape == (1, 1, 5, 5) and padded[0, 0, 0, 0] == 1  # nothing above or to the left
    assert pad_same(x, kernel=3, stride=1).shape == (1, 1, 6, 6)
    assert pad_same(x, kernel=1, stride=2) is x
    pooled = SameMaxPool2d(3, 2)(-x)
    assert pooled.tolist() == [[[[-1, -3], [-9, -11]]]]  # padding never wins


def test_standardised_kernels_forget_scale_and_offset() -> None:
    torch.manual_seed(0)
    conv = StdConv2d(4, 6, 3, 2, eps=1e-5)
    x = torch.randn(1, 4, 9, 9)
    before = conv(x)
    assert before.shape == (1, 6, 5, 5)
    with torch.no_grad():
        conv.weight.mul_(3).add_(0.5)
    torch.testing.assert_close(conv(x), before, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (dict(patch=5), "does not divide into patches of 5 pixels"),
        (dict(heads=5), "does not divide into 5 heads"),
        (dict(pool="max"), "expected one of token, mean, mean_norm"),
        (dict(pool="token"), "needs class_token"),
    ],
)
def test_impossible_configurations_are_refused(overrides: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        create_model("vit_nano", **overrides)


def test_wrong_pictures_are_named() -> None:
    model = create_model("vit_nano")
    height, width = model.config.image_hw
    with pytest.raises(ValueError, match=rf"expected pictures of shape \(B, 1, {height}, {width}\)"):
        model(torch.zeros(1, 3, height, width))
    with pytest.raises(ValueError, match="float"):
        model(torch.zeros(1, 1, height, width, dtype=torch.uint8))


def test_published_sizes() -> None:
    """The counts of the fact sheet, in millions, and its multiply-adds, in billions."""
    card = card_of("vit")
    published = {
        "vit_base_patch16_224": (86.568, 17.564),
        "vit_base_patch32_224": (88.224, 4.409),
        "vit_large_patch16_224": (304.327, 61.555),
        "vit_large_patch32_224": (306.535, 15.378),
        "vit_huge_patch14_224": (632.046, 167.295),
        "vit_base_patch16_384": (86.859, 55.484),
    }
    for name, (millions, billions) in published.items():
        variant = card.variants[name]
        assert variant.parameters / 1e6 == pytest.approx(millions, abs=6e-4)
        assert variant.macs / 1e9 == pytest.approx(billions, abs=6e-4)
    assert card.variants["vit_base_r50_s16_384"].parameters == 98_950_952


def test_fine_tuning_at_another_resolution_stretches_the_positions_and_rolls_out(tmp_path: Path) -> None:
    """A grid of 2 x 2 becomes 3 x 3: corners stay, edges are means of two, the middle is the mean of all."""
    shape = {"width": 8, "depth": 2, "heads": 2, "image_size": 8}
    common = {"batch_size": 64, "max_steps": 1, "optimizer.lr": 1e-9, "loggers": (), "ema": None}
    train("vit_nano", "digits", tmp_path / "small", architecture=shape, **common)
    train("vit_nano", "digits", tmp_path / "large", start_from=str(tmp_path / "small"), image_size=12, **common)
    small, large = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("small", "large"))
    a, b, c, d = small["position"][0]
    expected = [a, (a + b) / 2, b, (a + c) / 2, (a + b + c + d) / 4, (b + d) / 2, c, (c + d) / 2, d]
    torch.testing.assert_close(large["position"][0], torch.stack(expected), atol=1e-6, rtol=0)
    tuned = load_run(tmp_path / "large")
    assert attention_rollout(tuned.model, torch.randn(2, 1, 12, 12)).shape == (2, 3, 3)
    found = explain(tmp_path / "large", [np.full((20, 20), 90, np.uint8)], out=tmp_path / "maps")
    assert found["method"] == "attention-rollout" and Path(found["explanations"][0]["file"]).exists()


def test_the_papers_recipe_is_for_those_who_ask_for_it() -> None:
    recipe, _ = pick_recipe("vit_base_patch16_224", "cifar10", "fine-tuning")
    assert recipe is not None and recipe.settings["optimizer.name"] == "sgd" and recipe.settings["image_size"] == 384
    assert pick_recipe("vit_base_patch16_224", "cifar10", None)[0].data == "images"  # type: ignore[union-attr]
