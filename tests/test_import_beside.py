"""What lies beside official weights is their authority: taken where we have the choice, refused where not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import orchard
from safetensors.torch import load_file, save_file

from orchard.app.importing import import_checkpoint
from orchard.errors import OrchardError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.weights.official import export_official, read_official

transformers = pytest.importorskip("transformers")
VIT = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=6, intermediate_size=96, image_size=32,
           patch_size=8, num_labels=3)  # fmt: skip
NARROW: dict[str, Any] = dict(widths=(8, 8, 8, 8), stem_width=8)
BASE = "vit_base_patch16_224"


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A folder as transformers writes it, of a model with other heads, another activation and epsilon than ViT's."""
    torch.manual_seed(0)
    names = {0: "crane", 1: "ox", 2: "crane"}
    config = transformers.ViTConfig(**VIT, hidden_act="gelu_new", layer_norm_eps=1e-2, id2label=names)
    model = transformers.ViTForImageClassification(config)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(tmp_path / "hub")
    return tmp_path / "hub"


def change(file: Path, **values: Any) -> None:
    table = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(table | values))


def test_a_vit_of_transformers_computes_what_it_did(hub: Path, tmp_path: Path) -> None:
    change(
        hub / "preprocessor_config.json", size={"height": 32, "width": 32}, image_mean=[0.1, 0.2, 0.3],
        image_std=[0.4, 0.5, 0.6], resample=3, rescale_factor=1 / 255, do_resize=True,
    )  # fmt: skip
    import_checkpoint(BASE, hub, tmp_path / "out")
    ours, theirs = load(tmp_path / "out"), transformers.ViTForImageClassification.from_pretrained(hub).eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours.model(images), theirs(images).logits, atol=1e-5, rtol=1e-5)
    assert ours.classes == ("crane (0)", "ox", "crane (2)")
    p = ours.pictures
    assert (p.mean, p.std, p.size, p.resize, p.interpolation) == (
        (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (32, 32), "stretch", "bicubic",
    )  # fmt: skip


def test_a_gpt_of_transformers_computes_what_it_did(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=2, vocab_size=50, n_positions=16, activation_function="gelu",
        layer_norm_epsilon=1e-2, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).eval()
    theirs.save_pretrained(tmp_path / "hub")
    # As versions before 4.20 wrote it: with the causal mask and what stands in its place.
    state = load_file(tmp_path / "hub" / "model.safetensors")
    for n in range(2):
        state[f"transformer.h.{n}.attn.bias"] = torch.ones(1, 1, 16, 16).tril()
        state[f"transformer.h.{n}.attn.masked_bias"] = torch.tensor(-1e4)
    (tmp_path / "hub" / "model.safetensors").unlink()
    torch.save(state, tmp_path / "hub" / "pytorch_model.bin")
    done = import_checkpoint("gpt2", tmp_path / "hub", tmp_path / "out")
    tokens = torch.randint(50, (2, 16))
    torch.testing.assert_close(load(tmp_path / "out").model(tokens), theirs(tokens).logits, atol=1e-5, rtol=1e-5)
    assert done.official.ignored and all(name.endswith("masked_bias") for name in done.official.ignored)
    change(tmp_path / "hub" / "config.json", scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(OrchardError, match=r"config\.json: 'scale_attn_by_inverse_layer_idx' is 'True'"):
        import_checkpoint("gpt2", tmp_path / "hub", tmp_path / "b")


@pytest.mark.parametrize("masks", ["h.{}.attn.masked_bias", "h.{}.attn.bias h.{}.attn.masked_bias"])
def test_masks_of_a_gpt_without_head(masks: str, tmp_path: Path) -> None:
    model = create_model("gpt2", width=32, depth=2, heads=2, vocabulary=50, context=16)
    state = export_official(model, "hf_hub" if " " not in masks else "hf_base")
    state |= {name.format(n): torch.ones(1) for n in range(2) for name in masks.split()}
    save_file(state, tmp_path / "m.safetensors")
    found = read_official("gpt2", tmp_path / "m.safetensors", None, dict(width=32, depth=2, heads=2))
    assert torch.equal(found.model.token.weight, model.token.weight)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"hidden_act": "relu"}, r"'hidden_act' is 'relu', which this landmark does not have; it has 'gelu'"),
        ({"qkv_bias": False}, "'qkv_bias' is 'False'"),
        ({"num_attention_heads": "six"}, r"'heads': input should be a valid integer, got 'six'"),
        ({"num_attention_heads": 5}, "does not divide into 5 heads"),
        ({"num_hidden_layers": 10**9}, "'depth' is 1000000000"),
        ({"num_hidden_layers": 10**7}, "larger model than the weights"),
        ({"hidden_size": 6 * 10**6, "intermediate_size": 10**7}, "larger model than the weights"),
        ({"layer_norm_eps": float("nan")}, "'norm_eps': input should be a finite number"),
        ({"id2label": {"0": "a", "2": "b", "3": "c"}}, "'id2label' should number its 3 classes from 0"),
        ({"id2label": {"0": "a", "1": "b"}}, "names 2 classes, the weights have 3"),
        ({"id2label": ["a"]}, "'id2label': input should be a valid dictionary"),
    ],
)
def test_what_a_config_says_wrong_is_one_line(hub: Path, tmp_path: Path, values: dict[str, Any], expected: str) -> None:
    change(hub / "config.json", **values)
    with pytest.raises(OrchardError, match=expected) as caught:
        import_checkpoint(BASE, hub, tmp_path / "out")
    said = str(caught.value)
    assert str(hub) in said and "\n" not in said and len(said) < 600 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"a": 1e', '"x"', "\x00"])
def test_a_damaged_config_is_one_line(hub: Path, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (hub / "config.json").write_text(text)
    code = orchard("import", BASE, hub, "--out", tmp_path / "out")
    said = capsys.readouterr().err
    assert code == 1 and "config.json" in said and "fault of Orchard" not in said


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"size": 32, "do_center_crop": True, "crop_size": 28}, "makes images of 28x28"),
        ({"size": {"height": 64, "width": 64}}, "makes images of 64x64 .*, the model takes 32x32"),
        ({"resample": 4}, "'resample' is 4, expected one of 0, 1, 2, 3"),
        ({"rescale_factor": 1.0}, "'rescale_factor' is 1.0"),
        ({"do_rescale": False}, "'do_rescale' is false"),
        ({"image_mean": [0.5], "image_std": [0.5]}, "are of 1 channels, expected 3"),
        ({"image_std": [0.5, 0.5, 0]}, r"'image_std\.2': input should be greater than 0"),
        ({"image_mean": "x"}, "'image_mean': input should be a valid tuple"),
        ({"size": -1}, "'size"),
    ],
)
def test_what_a_processor_does_otherwise_is_refused(
    hub: Path, tmp_path: Path, values: dict[str, Any], expected: str
) -> None:
    change(hub / "preprocessor_config.json", **values)
    with pytest.raises(OrchardError, match=expected):
        import_checkpoint(BASE, hub, tmp_path / "out")


@pytest.mark.parametrize(
    ("values", "crop", "resize"),
    [
        (
            {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
            0.8,
            "shorter-side",
        ),
        ({"size": {"shortest_edge": 32}, "crop_pct": 0.875}, 0.875, "shorter-side"),
        ({"size": 32}, 1.0, "stretch"),
        ({"do_normalize": False}, 1.0, "stretch"),
    ],
)
def test_how_a_processor_resizes(hub: Path, values: dict[str, Any], crop: float, resize: str) -> None:
    change(hub / "preprocessor_config.json", **values)
    about = read_official(BASE, hub / "model.safetensors", None, {}).about
    assert (about.preprocess["crop"], about.preprocess["resize"]) == (crop, resize)
    if "do_normalize" in values:
        assert (about.preprocess["mean"], about.preprocess["std"]) == ((0.0,) * 3, (1.0,) * 3)


def test_timm_s_own_facts(tmp_path: Path) -> None:
    model = create_model("resnet18", **NARROW, num_classes=2)
    save_file(export_official(model, "timm"), tmp_path / "model.safetensors")
    facts = {"mean": [0.5] * 3, "std": [0.25] * 3, "crop_pct": 0.95, "interpolation": "bicubic", "crop_mode": "center"}
    change(tmp_path / "config.json", architecture="resnet18", pretrained_cfg=facts, label_names=["ant", "bee"])
    about = read_official("resnet18", tmp_path / "model.safetensors", None, NARROW).about
    assert about.classes == ("ant", "bee")
    assert about.preprocess["std"] == (0.25,) * 3 and about.preprocess["crop"] == 0.95
    assert about.preprocess["interpolation"] == "bicubic"
    change(tmp_path / "config.json", model_args={"act_layer": "silu"})
    with pytest.raises(OrchardError, match="'model_args' has 'act_layer', which is not read"):
        read_official("resnet18", tmp_path / "model.safetensors", None, NARROW)


def test_a_clip_with_another_activation_is_refused(tmp_path: Path) -> None:
    model = create_model("clip_nano")
    save_file(export_official(model, "hf"), tmp_path / "model.safetensors")
    c = model.config
    tower = {"hidden_size": c.text_width, "num_hidden_layers": c.text_depth, "num_attention_heads": c.text_heads}
    change(tmp_path / "config.json", text_config=tower | {"hidden_act": "quick_gelu"}, projection_dim=c.width)
    read_official("clip_nano", tmp_path / "model.safetensors", "hf", {})
    change(tmp_path / "config.json", text_config=tower | {"hidden_act": "gelu"})
    with pytest.raises(OrchardError, match=r"'text_config.hidden_act' is 'gelu'"):
        read_official("clip_nano", tmp_path / "model.safetensors", "hf", {})


def test_a_config_that_is_not_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(export_official(create_model("vqgan_nano"), "taming"), tmp_path / "model.safetensors")
    change(tmp_path / "config.json", latent_channels=3)
    assert orchard("import", "vqgan_nano", tmp_path, "--out", tmp_path / "out") == 0
    assert "config.json is not read for vqgan_nano" in capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["_orig_mod.", "_orig_mod.module.", "module.module.", "model.", "net.module."])
def test_a_prefix_of_all_names_is_no_part_of_them(prefix: str) -> None:
    model = create_model("resnet18", **NARROW, num_classes=2)
    state = {prefix + name: tensor for name, tensor in export_official(model, "timm").items()}
    found = read_official("resnet18", state, None, NARROW)
    assert all(torch.equal(found.model.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    model = create_model("resnet18", **NARROW, num_classes=2)
    state = export_official(model, "timm")
    state["fc.bias"][1] = value
    with pytest.raises(OrchardError, match=r"'fc\.bias' holds values that are no finite numbers"):
        read_official("resnet18", state, None, NARROW)
