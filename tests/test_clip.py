"""CLIP: OpenAI's tensors and names, timm's ResNet tower, and what the class promises beside forward."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.cards import card_of
from orchard.data.clip_bpe import read_clip_bpe
from orchard.errors import OrchardError, UsageError
from orchard.models import create_model, landmark_of
from orchard.models.image_text.clip import CLIP, CLIPConfig, example
from orchard.models.image_text.clip_resnet import ResNetTower
from orchard.nn.activation import QuickGELU
from orchard.weights.names import to_ours, to_theirs
from orchard.weights.official import export_official, load_official
from orchard.weights.reference import randomise

GOLDEN = Path(__file__).parent / "golden" / "clip"
TEXT = dict(text_width=32, text_depth=2, text_heads=4, vocabulary=60, context=12)
CASES = {
    "vit_a": CLIPConfig(24, 8, vision_width=64, vision_depth=2, vision_heads=1, image_size=32, **TEXT),
    "resnet_a": CLIPConfig(20, None, vision_width=4, vision_depth=(1, 1, 1, 1), image_size=64, **TEXT),
}


def filled(config: CLIPConfig, seed: int = 0) -> tuple[CLIP, dict[str, Tensor]]:
    torch.manual_seed(seed)
    model = CLIP(config).eval()
    inputs = example(config, 3, torch.Generator().manual_seed(seed))
    randomise(model, lambda: model(**inputs), seed)
    return model, inputs


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    model = CLIP(CASES[case]).eval()
    load_official(model, load_file(GOLDEN / case / "params.safetensors"), "openai")
    io = load_file(GOLDEN / case / "io.safetensors")
    with torch.no_grad():
        found = model(io["in.image"], io["in.text"])
        raw = model.vision(io["in.image"]), model.text(io["in.text"])
    for ours, official in zip(raw, ("image_features", "text_features"), strict=True):
        torch.testing.assert_close(ours, io[f"out.{official}"], atol=1e-5, rtol=0)
        torch.testing.assert_close(getattr(found, official), F.normalize(io[f"out.{official}"]), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.logits_per_image, io["out.logits_per_image"], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.logits_per_image.T, io["out.logits_per_text"], atol=1e-5, rtol=0)


def test_resnet_tower_same_as_timm() -> None:
    """The golden case has one block a stage; here are the real depths."""
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("resnet50_clip", pretrained=False, img_size=64).eval()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    randomise(theirs, lambda: theirs(x), seed=0)
    table: list[tuple[str, str]] = [
        ("layers.{}.shortcut.1.{}", "stages.{}.shortcut.conv.conv.{}"),
        ("layers.{}.shortcut.2.{}", "stages.{}.shortcut.conv.bn.{}"),
        ("pool.position", "head.pos_embed"),
        ("pool.out.{}", "head.proj.{}"),
        *((f"pool.{name}.{{}}", f"head.{name[0]}.{{}}") for name in ("query", "key", "value")),
        *((f"stem.conv{n}.{{}}", f"stem.conv{n}.conv.{{}}") for n in (1, 2, 3)),
        *((f"stem.bn{n}.{{}}", f"stem.conv{n}.bn.{{}}") for n in (1, 2, 3)),
    ]
    for n, name in enumerate(("conv1_1x1", "conv2_kxk", "conv3_1x1"), 1):
        table += [(f"layers.{{}}.conv{n}.{{}}", f"stages.{{}}.{name}.conv.{{}}")]
        table += [(f"layers.{{}}.bn{n}.{{}}", f"stages.{{}}.{name}.bn.{{}}")]
    ours = ResNetTower(3, 4, 64, (3, 4, 6, 3), 1024).eval()
    ours.load_state_dict(to_ours(table, theirs.state_dict(), ours.state_dict()))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=0)


def test_official_names_and_shapes() -> None:
    official = json.loads((GOLDEN / "official_checkpoint_keys.json").read_text())
    with torch.device("meta"):
        model = create_model("clip_vit_base_patch32")
        theirs = {name: torch.empty(shape) for name, shape in official["ViT-B/32"].items()}
    assert sum(p.numel() for p in model.parameters()) == official["parameters"]
    table = landmark_of("clip_nano").names["openai"](model.config)
    to_ours(table, theirs, model.state_dict())
    back = {name: list(tensor.shape) for name, tensor in to_theirs(table, model.state_dict()).items()}
    assert back == official["ViT-B/32"]


def test_reads_the_files_that_transformers_writes(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = dict(hidden_size=32, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2)
    text = dict(vocab_size=40, max_position_embeddings=8, bos_token_id=38, eos_token_id=39)
    theirs = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config=sizes | text, vision_config=sizes | dict(image_size=16, patch_size=8), projection_dim=24
        )
    ).eval()
    theirs.save_pretrained(tmp_path)
    config = CLIPConfig(
        24, 8, 32, 1, vision_heads=2, text_width=32, text_depth=1, text_heads=2, vocabulary=40, context=8, image_size=16
    )
    ours = CLIP(config).eval()
    load_official(ours, tmp_path / "model.safetensors", "hf")
    inputs = example(config, 3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = theirs(pixel_values=inputs["images"], input_ids=inputs["tokens"]).logits_per_image
        torch.testing.assert_close(ours(**inputs).logits_per_image, logits, atol=1e-5, rtol=0)


def test_no_export_of_a_resnet_to_transformers() -> None:
    with pytest.raises(OrchardError, match="no rule"):
        export_official(CLIP(CASES["resnet_a"]), "hf")


def test_sentence_is_read_at_its_end_and_no_further() -> None:
    model, inputs = filled(CASES["vit_a"])
    tokens = torch.tensor([[58, 3, 5, 59, 0, 0, 0, 0]])
    with torch.no_grad():
        short = model.text_features(tokens)
        for changed in (
            F.pad(tokens, (0, 4)),
            tokens[:, :4],
            torch.cat([tokens[:, :4], torch.full((1, 8), 59)], 1),
            torch.cat([tokens[:, :4], torch.tensor([[7, 9]])], 1),
        ):
            torch.testing.assert_close(model.text_features(changed), short, atol=1e-6, rtol=0)
        other = model.text_features(torch.tensor([[58, 4, 5, 59]]))
    assert (other - short).abs().max() > 1e-2
    norms = model(**inputs).image_features.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(3))


def test_starts_as_the_official_code_does() -> None:
    torch.manual_seed(0)
    model = create_model("clip_nano", text_width=128, text_depth=3, vocabulary=4096)
    assert model.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    assert model.text.token_embed.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert model.text.position.std().item() == pytest.approx(0.01, rel=0.05)
    block = model.text.stack.blocks[1]
    spreads = {block.attention.qkv: 128**-0.5, block.attention.out: (128 * 6) ** -0.5, block.mlp.fc1: 256**-0.5}
    for linear, spread in (spreads | {block.mlp.fc2: (128 * 6) ** -0.5}).items():
        assert linear.weight.std().item() == pytest.approx(spread, rel=0.03)
    tower = CLIP(CASES["resnet_a"]).vision
    assert all(not block.bn3.weight.any() for stage in tower.layers for block in stage)


def test_quick_gelu() -> None:
    x = torch.linspace(-6, 6, 1201)
    difference = (QuickGELU()(x) - F.gelu(x)).abs().max()
    assert 0.019 < difference < 0.021


@pytest.mark.parametrize("case", CASES)
def test_weights_move_to_another_picture_size(case: str) -> None:
    small, _ = filled(CASES[case])
    config = CLIPConfig(**{**vars(CASES[case]), "image_size": (96, 128)})
    wide = CLIP(config).eval()
    wide.load_state_dict(wide.fit_state(small.state_dict(), CASES[case]))
    assert wide(**example(config, 2, torch.Generator().manual_seed(0))).logits_per_image.shape == (2, 2)


class Logits(nn.Module):
    def __init__(self, model: CLIP):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        return self.model(images, tokens).logits_per_image


@pytest.mark.parametrize("case", CASES)
def test_exports_for_any_batch(case: str) -> None:
    model, inputs = filled(CASES[case])
    batches = ({0: torch.export.Dim("pictures")}, {0: torch.export.Dim("sentences")})
    program = torch.export.export(Logits(model), tuple(inputs.values()), dynamic_shapes=batches)
    other = example(model.config, 4, torch.Generator().manual_seed(5))
    other["images"] = other["images"][:2]
    with torch.no_grad():
        torch.testing.assert_close(
            program.module()(*other.values()), model(**other).logits_per_image, atol=1e-5, rtol=0
        )


def test_groups_cover_every_parameter_once() -> None:
    for config in CASES.values():
        model = CLIP(config)
        groups = model.layer_groups()
        for name, _ in model.named_parameters():
            assert sum(name.startswith(group) for group in groups) == 1, name
        assert "logit_scale" in groups[-1]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (dict(patch=None), "a ResNet has neither"),
        (dict(patch=5), "does not divide into cells of 5 pixels"),
        (dict(text_heads=5), "does not divide into 5 heads"),
        (dict(vision_depth=(1, 1)), "a ResNet has neither"),
    ],
)
def test_impossible_configurations_are_refused(overrides: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        create_model("clip_nano", **overrides)


def test_wrong_input_is_named() -> None:
    model = create_model("clip_nano")
    images, tokens = torch.zeros(2, 1, 28, 28), torch.zeros(2, 32, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"expected pictures of shape \(B, 1, 28, 28\)"):
        model(images[:, 0], tokens)
    for wrong in (tokens[0], tokens.int(), tokens[:, :0], torch.zeros(2, 33, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"expected token ids of shape \(N, T\) int64 with T from 1 to 32"):
            model(images, wrong)
    for wrong in (tokens - 1, tokens + 512):
        with pytest.raises(ValueError, match="expected token ids from 0 to 511"):
            model(images, wrong)


def test_published_sizes() -> None:
    """The counts of the fact sheet, in millions, and its multiply-adds, in billions."""
    card = card_of("clip")
    millions = {
        "rn50": 102.007, "rn101": 119.688, "rn50x4": 178.301, "rn50x16": 290.979, "rn50x64": 623.258,
        "vit_base_patch32": 151.277, "vit_base_patch16": 149.621, "vit_large_patch14": 427.617,
        "vit_large_patch14_336": 427.944,
    }  # fmt: skip
    billions = {"vit_base_patch32": 7.389, "vit_base_patch16": 20.543, "vit_large_patch14": 87.663}
    for name, count in millions.items():
        assert card.variants[f"clip_{name}"].parameters / 1e6 == pytest.approx(count, abs=6e-4)
    for name, count in billions.items():
        assert card.variants[f"clip_{name}"].macs / 1e9 == pytest.approx(count, abs=6e-4)


def test_openai_s_encoding_same_as_transformers(tmp_path: Path) -> None:
    """With merges of our own: the real file is OpenAI's."""
    transformers = pytest.importorskip("transformers")
    merges = ["c a", "ca t</w>", "d o", "do g</w>", "a n", "an d</w>", "' s</w>", "Ã ¤", "t h", "th e</w>"]
    (tmp_path / "merges.txt").write_text("#version\n" + "\n".join(merges) + "\n", encoding="utf-8")
    encode = read_clip_bpe(tmp_path / "merges.txt", context=40)
    printable = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 324))]
    words = [*printable, *(c + "</w>" for c in printable), *(m.replace(" ", "") for m in merges)]
    vocabulary = {word: n for n, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    theirs = transformers.CLIPTokenizer(vocab=vocabulary, merges=[tuple(merge.split()) for merge in merges])
    for text in ("a cat and the dog's 12 bones!", "The  CAT\n än ä", "don't; it's <3", "狗 cat 🐕 dog"):
        ids = theirs(text)["input_ids"]
        assert encode(text).tolist() == ids + [0] * (40 - len(ids))
    assert encode("the dog &amp; the cat").tolist() == encode("the dog & the cat").tolist()
    (tmp_path / "odd.txt").write_text("#version\na b c\n", encoding="utf-8")
    with pytest.raises(OrchardError, match="line 2: expected two tokens"):
        read_clip_bpe(tmp_path / "odd.txt")
