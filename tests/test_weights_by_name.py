"""Weights by URL with the sha256 that it states: torchvision's with their classes, OpenAI's; files of timm's."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import orchard
from fake_hub import FakeHub, running
from safetensors.torch import save_file
from torchvision.models import ResNet18_Weights, ResNet50_Weights, ViT_B_16_Weights

from orchard.app.importing import import_checkpoint
from orchard.cards import Weights, all_cards, card_of
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.models.foreign import tag_remark
from orchard.weights import by_name
from orchard.weights.download import checksum_of, download
from orchard.weights.official import export_official

NARROW: dict[str, Any] = dict(widths=(8, 8, 8, 8), stem_width=8)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with running() as found:
        yield found


def put(server: FakeHub, name: str, content: bytes) -> str:
    """The URL of a file whose name ends with its checksum, as torchvision's do."""
    file = f"{name}-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files[file] = content
    return f"{server.url}/files/{file}"


def saved(state: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def test_torchvision_s_weights_come_with_classes_and_preprocessing(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    theirs = create_model("resnet18", **NARROW).eval()
    monkeypatch.setattr(
        ResNet18_Weights.IMAGENET1K_V1.value,
        "url",
        put(server, "resnet18", saved(export_official(theirs, "torchvision"))),
    )
    settings = [word for key, value in NARROW.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    assert orchard("import", "resnet18", "torchvision:IMAGENET1K_V1", "--out", tmp_path / "out", *settings) == 0
    assert "fetching http" in capsys.readouterr().err
    found, images = load(tmp_path / "out"), torch.randn(1, 3, 224, 224)
    assert torch.equal(found.model(images), theirs(images))
    assert len(found.classes) == 1000 and found.classes[0] == "tench" and found.classes[134] == "crane bird"
    assert (found.pictures.size, found.pictures.crop, found.pictures.interpolation) == (
        (224, 224),
        224 / 256,
        "bilinear",
    )
    assert (
        "torchvision:ResNet18_Weights.IMAGENET1K_V1, resnet18-"
        in json.loads((tmp_path / "out/config.json").read_text())["origin"]
    )
    server.asked.clear()
    assert by_name.find_weights("resnet18", "torchvision:ResNet18_Weights.DEFAULT").file.is_file() and not server.asked


def test_how_other_weights_of_torchvision_s_are_prepared_for() -> None:
    known = by_name._beside("resnet50", ResNet50_Weights.IMAGENET1K_V2)
    assert known.ways["crop"] == 224 / 232 and known.settings == {"image_size": 224}
    large = by_name._beside("vit_base_patch16_224", ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1)
    assert large.settings == {"image_size": 384} and large.ways["interpolation"] == "bicubic"


@pytest.mark.parametrize(
    ("name", "place", "expected"),
    [
        ("resnet50", "torchvision:IMAGENET1K_V7", r"unknown weights of ResNet50_Weights 'IMAGENET1K_V7'; did"),
        ("resnet50", "torchvision:ResNet18_Weights.DEFAULT", "are not the weights of torchvision's resnet50: those"),
        ("resnet50", "torchvision:Nothing.DEFAULT", "'Nothing' are not the weights of"),
        ("resnet_nano", "torchvision:DEFAULT", "torchvision has no model 'resnet_nano'; say which"),
        ("resnet50", "card:openai", "the card of resnet50 gives no URL of weights"),
        ("clip_rn50", "card:x", "unknown weights of clip_rn50 'x'; known: openai"),
        ("clip_nano", "card:openai", "the card of clip gives no URL|the card of clip_nano gives no URL"),
    ],
)  # fmt: skip
def test_names_that_there_are_not(name: str, place: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        import_checkpoint(name, place, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_download_is_what_its_url_says_or_nothing(server: FakeHub, tmp_path: Path) -> None:
    url = put(server, "x", bytes(range(256)) * 100)
    place = download(url)
    assert place == tmp_path / "torch/hub/checkpoints" / url.rpartition("/")[2]
    place.write_bytes(b"something else")
    server.cut.add(place.name)
    with pytest.raises(OrchardError, match=r"was cut short after 12,800 of 25,600 bytes|broke off after"):
        download(url)
    server.cut.clear()
    server.changed.add(place.name)
    with pytest.raises(OrchardError, match=r"the sha256 of what came begins with .*; it was not kept"):
        download(url)
    assert place.read_bytes() == b"something else"
    server.changed.clear()
    assert download(url).read_bytes() == server.files[place.name]
    with pytest.raises(OrchardError, match="cannot be fetched: the server says 404"):
        download(f"{server.url}/files/y-00000000.pth")
    with pytest.raises(OrchardError, match="is this machine on the network"):
        download("http://127.0.0.1:9/files/y-00000000.pth")


def test_a_card_s_file_comes_with_its_vocabulary(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, merges = create_model("clip_nano"), b"merges"
    url = put(server, "clip", saved(export_official(model, "openai")))
    server.files["bpe_simple_vocab_16e6.txt.gz"] = merges
    words = f"{server.url}/files/bpe_simple_vocab_16e6.txt.gz#sha256={hashlib.sha256(merges).hexdigest()}"
    card = dataclasses.replace(card_of("clip"), weights=(Weights("openai", {"clip_nano": url}, (words,)),))
    monkeypatch.setattr(by_name, "card_of", lambda name: card)
    done = import_checkpoint("clip_nano", "card:openai", tmp_path / "out")
    assert done.words == "bpe_simple_vocab_16e6.txt.gz" and done.official.about.origin.startswith(url)


def test_every_url_of_a_card_states_a_checksum() -> None:
    urls = [
        url for card in all_cards().values() for row in card.weights for url in (*row.files.values(), *row.vocabulary)
    ]
    assert urls and all(re.fullmatch("[0-9a-f]{8,64}", checksum_of(url)) for url in urls)
    assert checksum_of("https://x.org/resnet50-11ad3fa6.pth") == "11ad3fa6"
    assert checksum_of("https://x.org/resnet50.pth") == ""


def test_a_timm_network_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model("convnext_atto", num_classes=3).eval()
    file = tmp_path / "weights.safetensors"
    save_file({f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}, file)
    assert orchard("import", "timm:convnext_atto.d2_in1k", file, "--out", tmp_path / "out") == 0
    found, images = load(tmp_path / "out"), torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(found.model(images), theirs(images))
    facts = timm.get_pretrained_cfg("convnext_atto.d2_in1k")
    assert found.pictures.interpolation == facts.interpolation and found.pictures.crop == facts.crop_pct
    assert found.classes == ("0", "1", "2")
    assert orchard("import", "timm:resnet18", file, "--out", tmp_path / "b") == 1
    assert "its architecture is of a larger model than the weights" in capsys.readouterr().err
    assert orchard("import", "timm:mobilenetv3_small_050", file, "--out", tmp_path / "b") == 1
    assert "is it of another model?" in capsys.readouterr().err
    assert orchard("import", "hf:vit", file, "--out", tmp_path / "b") == 2
    assert "weights are read into landmarks and timm:NAME, not into hf:vit" in capsys.readouterr().err


def test_imagenet_s_classes_where_timm_s_tag_says_so() -> None:
    from orchard.weights.beside import timm_beside

    for tag, known in (("a1_in1k", 1000), ("augreg_in21k_ft_in1k_384", 1000), ("in21k", 0), ("x_in1k_more", 0)):
        assert len(timm_beside({"tag": tag, "num_classes": 1000}).classes) == known


def test_a_tag_s_weights_are_said_not_to_be_loaded() -> None:
    pytest.importorskip("timm")
    said = tag_remark("timm:resnet18.a1_in1k")
    assert said.startswith("timm:resnet18.a1_in1k begins with random weights")
    assert "orchard import timm:resnet18.a1_in1k hub:timm/resnet18.a1_in1k --out FOLDER" in said
    assert tag_remark("timm:resnet18") == tag_remark("vit_nano") == tag_remark("hf:vit") == ""
