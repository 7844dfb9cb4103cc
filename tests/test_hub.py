"""Weights by name: out of a hub on loopback, with what lies beside them, and nothing that could run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import orchard
from fake_hub import COMMIT, FakeHub, running
from huggingface_hub import constants, file_download
from safetensors.torch import save_file

import orchard as api
from orchard.app.importing import import_checkpoint
from orchard.data.clip_bpe import clip_tokens, read_clip_bpe
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.tasks.zero_shot_image_classification.matcher import MERGES
from orchard.weights.official import export_official

NARROW: dict[str, Any] = dict(widths=(8, 8, 8, 8), stem_width=8)
TIMM = {
    "architecture": "resnet18", "num_classes": 2, "num_features": 8, "global_pool": "avg", "label_names": ["n1", "n2"],
    "label_descriptions": {"n1": "ant", "n2": "bee"},
    "pretrained_cfg": {
        "tag": "x_in2", "custom_load": False, "input_size": [3, 96, 96], "fixed_input_size": False,
        "interpolation": "bicubic", "crop_pct": 0.95, "crop_mode": "center", "mean": [0.5] * 3, "std": [0.25] * 3,
        "num_classes": 2, "pool_size": [3, 3], "first_conv": "conv1", "classifier": "fc",
    },
}  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with running() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield found


@pytest.fixture
def small(hub: FakeHub, tmp_path: Path) -> torch.nn.Module:
    """A narrow ResNet in timm's names, with timm's config.json, a pickle and code beside it."""
    torch.manual_seed(0)
    model = create_model("resnet18", **NARROW, num_classes=2).eval()
    folder = tmp_path / "small"
    folder.mkdir()
    save_file(export_official(model, "timm"), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(TIMM))
    hub.add("timm/small.x_in2", folder, pytorch_model__bin=b"pickle", modeling__py=b"code", README__md=b"# read me")
    return model


def test_a_timm_repository_with_its_preprocessing_and_classes(
    hub: FakeHub, small: torch.nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, settings = tmp_path / "out", [f"{key}={json.dumps(value)}" for key, value in NARROW.items()]
    place = "hub:timm/small.x_in2@v1"
    assert orchard("import", "resnet18", place, "--out", out, *[w for s in settings for w in ("--set", s)]) == 0
    said = capsys.readouterr()
    assert f"hub:timm/small.x_in2@{COMMIT}: model.safetensors, config.json (" in said.err
    assert hub.fetched() == {"model.safetensors", "config.json"}
    found = load(out)
    images = torch.randn(1, 3, 96, 96)
    assert torch.equal(found.model(images), small(images))
    p = found.pictures
    assert (p.mean, p.std, p.size, p.crop, p.interpolation) == ((0.5,) * 3, (0.25,) * 3, (96, 96), 0.95, "bicubic")
    assert found.classes == ("ant", "bee")
    origin = json.loads((out / "config.json").read_text())["origin"]
    assert origin == f"hub:timm/small.x_in2@{COMMIT}, timm names"
    hub.asked.clear()
    about, _ = api.import_official("resnet18", "hub:timm/small.x_in2", tmp_path / "python", **NARROW)
    assert about.origin == origin and not hub.fetched()  # it lies in the cache


def test_offline_is_what_was_fetched_before(
    hub: FakeHub, small: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OrchardError, match="was not fetched before, and HF_HUB_OFFLINE says"):
        import_checkpoint("resnet18", "hub:timm/small.x_in2", tmp_path / "out", overrides=NARROW)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    import_checkpoint("resnet18", f"hub:timm/small.x_in2@{COMMIT}", tmp_path / "a", overrides=NARROW)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    done = import_checkpoint("resnet18", f"hub:timm/small.x_in2@{COMMIT}", tmp_path / "b", overrides=NARROW)
    assert COMMIT in done.official.about.origin and not hub.asked


def test_a_transformers_repository_in_shards(hub: FakeHub, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=6, intermediate_size=96)
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8, id2label={0: "ox", 1: "cow", 2: "gnu"})
    theirs = transformers.ViTForImageClassification(config).eval()
    theirs.save_pretrained(tmp_path / "vit", max_shard_size="100KB")
    assert (tmp_path / "vit" / "model.safetensors.index.json").exists()
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps({"size": 32, "image_mean": [0.1, 0.2, 0.3]}))
    hub.add("google/vit", tmp_path / "vit")
    import_checkpoint("vit_base_patch16_224", "hub:google/vit", tmp_path / "out")
    found, images = load(tmp_path / "out"), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(found.model(images), theirs(images).logits, atol=1e-5, rtol=1e-5)
    assert found.classes == ("ox", "cow", "gnu") and found.pictures.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("place", "kind", "expected"),
    [
        ("hub:timm/none", UsageError, "has no model 'timm/none', or it is private"),
        ("hub:timm/small.x_in2@v9", UsageError, "has no revision 'v9'; name a branch"),
        ("hub:timm/small.x_in2@", UsageError, "expected hub:OWNER/NAME or hub:OWNER/NAME@REVISION"),
        ("hub:../../x/y", UsageError, "expected hub:OWNER/NAME"),
        ("hub:timm/pickles", OrchardError, r"has no model.safetensors \(it has pytorch_model.bin\), and nothing else"),
        ("hub:timm/broken", OrchardError, "index.json names '../x.safetensors', which is not beside it"),
    ],
)
def test_what_a_hub_does_not_have(
    hub: FakeHub, small: torch.nn.Module, tmp_path: Path, place: str, kind: type, expected: str
) -> None:
    hub.repos["timm/pickles"] = {"pytorch_model.bin": b"pickle", "config.json": b"{}"}
    index = json.dumps({"weight_map": {"fc.weight": "../x.safetensors"}}).encode()
    hub.repos["timm/broken"] = {"model.safetensors.index.json": index}
    with pytest.raises(kind, match=expected) as caught:
        import_checkpoint("resnet18", place, tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_another_architecture_is_one_line(hub: FakeHub, small: torch.nn.Module, tmp_path: Path) -> None:
    with pytest.raises(
        OrchardError, match=r"is of a larger model than the weights; .* calls the network 'resnet18'"
    ) as caught:
        import_checkpoint("resnet50", "hub:timm/small.x_in2", tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_no_network_is_said_within_seconds(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    assert orchard("import", "resnet18", "hub:timm/x", "--out", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert time.monotonic() - began < 5
    assert "error: hub:timm/x cannot be fetched from http://127.0.0.1:9: " in said and said.count("\n") == 1


def test_a_file_that_breaks_off_each_time_ends(
    hub: FakeHub, small: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**12)
    hub.repos["timm/small.x_in2"]["model.safetensors"] *= 20
    hub.cut.add("model.safetensors")
    with pytest.raises(OrchardError, match=r"model\.safetensors breaks off each time before it is whole"):
        import_checkpoint("resnet18", "hub:timm/small.x_in2", tmp_path / "out", overrides=NARROW)


def test_a_wrong_checksum_is_refused_and_the_file_fetched_again(
    hub: FakeHub, small: torch.nn.Module, tmp_path: Path
) -> None:
    hub.changed.add("model.safetensors")
    with pytest.raises(OrchardError, match=r"did not come whole: its sha256 begins with .* it was removed"):
        import_checkpoint("resnet18", "hub:timm/small.x_in2", tmp_path / "out", overrides=NARROW)
    hub.changed.clear()
    import_checkpoint("resnet18", "hub:timm/small.x_in2", tmp_path / "out", overrides=NARROW)


def test_weights_larger_than_the_model_are_not_fetched(
    hub: FakeHub, small: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchard.weights.by_name.largest_for", lambda name: 1000)
    with pytest.raises(OrchardError, match=r"has 0\.\d MB, expected at most 0.0 MB for this model"):
        import_checkpoint("resnet18", "hub:timm/small.x_in2", tmp_path / "out", overrides=NARROW)
    assert "model.safetensors" not in hub.fetched()


def test_a_clip_of_the_hub_reads_words(hub: FakeHub, tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "merges.txt").write_text("#version: 0.2\no x</w>\nc o\nco w</w>\n")
    words = clip_tokens(folder / "merges.txt")
    model = create_model("clip_nano", vocabulary=len(words))
    save_file(export_official(model, "hf"), folder / "model.safetensors")
    (folder / "vocab.json").write_text(json.dumps(words))
    hub.add("openai/clip", folder)
    done = import_checkpoint("clip_nano", "hub:openai/clip", tmp_path / "out", overrides={"vocabulary": len(words)})
    assert done.words == "vocab.json, merges.txt" and not done.remarks
    encode = read_clip_bpe(tmp_path / "out" / MERGES, model.config.context)
    assert encode("cow ox").tolist()[:4] == [
        words[one] for one in ("<|startoftext|>", "cow</w>", "ox</w>", "<|endoftext|>")
    ]
    (folder / "vocab.json").write_text(json.dumps(words | {"co": 0}))
    with pytest.raises(OrchardError, match=r"vocab\.json numbers its tokens otherwise"):
        import_checkpoint("clip_nano", folder, tmp_path / "b", overrides={"vocabulary": len(words)})
