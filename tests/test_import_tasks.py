"""Official checkpoints of every task, with the files that lie beside them, become models that are ready for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import save_file
from torch import nn

from orchard.app.importing import import_checkpoint
from orchard.cli.imports import import_model
from orchard.cli.output import run_app
from orchard.data.tokenizers import load_tokenizer
from orchard.data.train_tokenizers import train_bpe
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load
from orchard.models import create_model, landmark_of
from orchard.tasks.image_tokenization.image_tokenizer import read_image_tokenizer
from orchard.tasks.text_to_image.pipeline import TextToImagePipeline
from orchard.tasks.zero_shot_image_classification.matcher import MERGES
from orchard.weights.official import export_official
from orchard.weights.portable import fingerprint_of
from orchard.weights.reference import randomise

TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps on " * 4
SMALL: dict[str, Any] = dict(width=32, depth=2, heads=2, context=16)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "一", "只", "狗", "猫", "a", "##b"]


def grown(name: str, **overrides: Any) -> nn.Module:
    model = create_model(name, **overrides).eval()
    inputs = landmark_of(name).example(model.config, 2, torch.Generator().manual_seed(0))
    randomise(model, lambda: model(**inputs), seed=1)
    return model


def same(folder: Path, model: nn.Module) -> bool:
    return fingerprint_of(load(folder).model) == fingerprint_of(model)


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two files of a byte-level BPE."""
    folder = tmp_path_factory.mktemp("bpe")
    model = json.loads(train_bpe([TEXT], 280).inner.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return folder


def sizes(bpe: Path) -> dict[str, Any]:
    return SMALL | {"vocabulary": len(json.loads((bpe / "vocab.json").read_text()))}


# Text


def test_a_folder_of_the_hub_brings_its_words(bpe: Path, tmp_path: Path) -> None:
    model = grown("gpt2_nano", **sizes(bpe))
    hub = tmp_path / "hub"
    hub.mkdir()
    save_file(export_official(model, "hf_hub"), hub / "model.safetensors")
    for name in ("vocab.json", "merges.txt"):
        (hub / name).write_bytes((bpe / name).read_bytes())
    done = import_checkpoint("gpt2_nano", hub, tmp_path / "out", overrides=SMALL)
    assert done.words == "vocab.json, merges.txt" and not done.remarks and "hf_hub" in done.official.about.origin
    assert same(tmp_path / "out", model)
    tokenizer = load_tokenizer(tmp_path / "out" / "text_tokenizer")
    assert tokenizer.decode(tokenizer.encode("a lazy fox")) == "a lazy fox"
    assert load(tmp_path / "out").facts["text_tokenizer"] == tokenizer.fingerprint


@pytest.mark.parametrize("kind", ["openai", "mingpt", "nanogpt"])
def test_files_of_gpt_as_their_programs_write_them(kind: str, bpe: Path, tmp_path: Path) -> None:
    plain: dict[str, Any] = {"tanh_gelu": False, "bias": False} if kind == "nanogpt" else {}
    model = grown("gpt2_nano", **sizes(bpe), **plain)
    state = export_official(model, kind)
    path = tmp_path / {"openai": "model.npz", "mingpt": "model.pt", "nanogpt": "ckpt.pt"}[kind]
    if kind == "openai":
        np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})
    elif kind == "mingpt":
        torch.save(state, path)
    else:  # from a compiled model, with all that goes on with a training
        compiled = {f"_orig_mod.{name}": tensor for name, tensor in state.items()}
        torch.save({"model": compiled, "model_args": {"n_layer": 2}, "iter_num": 7, "config": {"lr": 1e-3}}, path)
    files = [bpe / "merges.txt", bpe / "vocab.json"]  # in any order
    import_checkpoint("gpt2_nano", path, tmp_path / "out", files=files, overrides=SMALL | plain)
    assert same(tmp_path / "out", model)
    assert load_tokenizer(tmp_path / "out" / "text_tokenizer").kind == "bpe"


def test_without_words_it_says_how_to_get_them(bpe: Path, tmp_path: Path) -> None:
    model = grown("gpt2_nano", **SMALL, vocabulary=99)
    save_file(export_official(model, "hf_file"), tmp_path / "m.safetensors")
    done = import_checkpoint("gpt2_nano", tmp_path / "m.safetensors", tmp_path / "out", overrides=SMALL)
    assert same(tmp_path / "out", model) and "--files vocab.json --files merges.txt" in done.remarks[0]
    with pytest.raises(OrchardError, match=r"makes \d+ tokens, the model of .* has 99"):
        files = [bpe / "vocab.json", bpe / "merges.txt"]
        import_checkpoint("gpt2_nano", tmp_path / "m.safetensors", tmp_path / "b", files=files, overrides=SMALL)
    assert not (tmp_path / "b").exists()


# Pictures


def test_what_a_vqgan_s_file_has_besides_is_ignored_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = grown("vqgan_nano")
    state = export_official(model, "taming")
    besides = {
        "loss.discriminator.main.0.weight": torch.ones(2),
        "loss.perceptual_loss.lin0.model.1.weight": torch.ones(1),
    }
    torch.save({"epoch": 3, "global_step": 9, "state_dict": state | besides}, tmp_path / "last.ckpt")
    words = ["import", "vqgan_nano", str(tmp_path / "last.ckpt"), "--out", str(tmp_path / "out")]
    assert command(monkeypatch, *words, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ignored"] == 2 and answer["preprocess"]["mean"] == [0.5, 0.5, 0.5] and answer["classes"] == 0
    assert same(tmp_path / "out", model)
    assert command(monkeypatch, *words[:-1], str(tmp_path / "b")) == 0
    said = capsys.readouterr().out
    assert "2 ignored that are no part of it, 'loss.discriminator" in said and "classes" not in said
    torch.save(state | {"loss.logvar": torch.ones(1)}, tmp_path / "odd.ckpt")
    with pytest.raises(OrchardError, match=r"left over, 'loss.logvar'"):
        import_checkpoint("vqgan_nano", tmp_path / "odd.ckpt", tmp_path / "c")


def test_openai_s_clip_and_its_merges(tmp_path: Path) -> None:
    model = grown("clip_nano")
    constants = {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    torch.save(
        {name: t.half() for name, t in export_official(model, "openai").items()} | constants, tmp_path / "clip.pt"
    )
    (tmp_path / MERGES).write_bytes(b"as it is")
    done = import_checkpoint("clip_nano", tmp_path / "clip.pt", tmp_path / "out", files=[tmp_path / MERGES])
    assert sorted(done.official.ignored) == sorted(constants) and done.words == MERGES
    assert (tmp_path / "out" / MERGES).read_bytes() == b"as it is"
    halves = load(tmp_path / "out").model.state_dict()
    assert all(torch.equal(halves[name], t.half().float()) for name, t in model.state_dict().items())
    done = import_checkpoint("clip_nano", tmp_path / "clip.pt", tmp_path / "b")
    assert MERGES in done.remarks[0]
    with pytest.raises(UsageError, match="reads no text"):
        import_checkpoint("vqgan_nano", tmp_path / "clip.pt", tmp_path / "c", files=[tmp_path / MERGES])


# Pictures out of words


@pytest.fixture(scope="module")
def painter() -> tuple[nn.Module, nn.Module]:
    drawer = grown("vqgan_nano")
    return grown("painter_nano", depth=1, text_vocabulary=len(WORDS), image_length=64), drawer


def easynlp(folder: Path, painter: nn.Module, drawer: nn.Module | None) -> Path:
    folder.mkdir()
    state = export_official(painter, "easynlp")
    if drawer is not None:
        state |= {f"first_stage_model.{name}": t for name, t in export_official(drawer, "taming").items()}
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    (folder / "config.json").write_text("{}")
    return folder


def is_whole(out: Path, painter: nn.Module, drawer: nn.Module, side: int = 8) -> bool:
    pictures = read_image_tokenizer(out / "picture_tokenizer")
    assert load(out).facts == {"picture_tokenizer": pictures.fingerprint, "grid": [side, side], "text_length": 32}
    assert load_tokenizer(out / "text_tokenizer").encode("一只狗") == [5, 6, 7]
    return same(out, painter) and pictures.fingerprint == fingerprint_of(drawer)


def test_easynlp_s_folder_is_a_painter_with_both_tokenizers(
    painter: tuple[nn.Module, nn.Module],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, out = easynlp(tmp_path / "easynlp", *painter), tmp_path / "out"
    words = ["import", "painter_nano", str(folder), "--out", str(out), "--set", "depth=1"]
    assert command(monkeypatch, *words) == 1  # its VQGAN is not the large one that EasyNLP's painters have
    assert "--tokenizer names the variant" in capsys.readouterr().err and not out.exists()
    assert command(monkeypatch, *words, "--tokenizer", "vqgan_nano", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["text_tokenizer"] == "vocab.txt" and answer["picture_tokenizer"] == "vqgan_nano"
    assert answer["architecture"]["image_length"] == 64 and answer["architecture"]["codes"] == 128
    assert is_whole(out, *painter)


def test_a_painter_alone_takes_its_vqgan_from_a_file_or_a_folder(
    painter: tuple[nn.Module, nn.Module], tmp_path: Path
) -> None:
    folder = easynlp(tmp_path / "easynlp", painter[0], None)
    with pytest.raises(UsageError, match="needs its VQGAN"):
        import_checkpoint("painter_nano", folder, tmp_path / "a", overrides={"depth": 1})
    torch.save({"state_dict": export_official(painter[1], "taming")}, tmp_path / "last.ckpt")
    given: dict[str, Any] = dict(files=[tmp_path / "last.ckpt"], tokenizer="vqgan_nano", overrides={"depth": 1})
    import_checkpoint("painter_nano", folder, tmp_path / "b", **given)
    assert is_whole(tmp_path / "b", *painter)
    import_checkpoint("vqgan_nano", tmp_path / "last.ckpt", tmp_path / "tokenizer")
    import_checkpoint(
        "painter_nano", folder, tmp_path / "c", tokenizer=str(tmp_path / "tokenizer"), overrides={"depth": 1}
    )
    assert is_whole(tmp_path / "c", *painter)
    (folder / "vocab.txt").write_text("\n".join(WORDS[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(OrchardError, match=r"makes 10 word ids, the model of .* has 11"):
        import_checkpoint("painter_nano", folder, tmp_path / "d", **given)
    (folder / "vocab.txt").unlink()
    with pytest.raises(UsageError, match=r"needs its vocab\.txt"):
        import_checkpoint("painter_nano", folder, tmp_path / "d", **given)
    assert not (tmp_path / "d").exists()


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    app = typer.Typer()
    app.command("import")(import_model)
    app.command("other")(lambda: None)
    monkeypatch.setattr(sys, "argv", ["orchard", *words])
    return run_app(app, debug=False)


def test_a_file_of_dalle_pytorch_holds_its_own_tokenizer(tmp_path: Path) -> None:
    painter, drawer = grown("dalle_nano", depth=1, text_vocabulary=len(WORDS)), grown("discrete_vae_nano")
    inside = {f"vae.{name}": tensor for name, tensor in export_official(drawer, "dalle_pytorch").items()}
    kept = {"hparams": {"depth": 1}, "epoch": 3, "weights": export_official(painter, "dalle_pytorch") | inside}
    torch.save(kept, tmp_path / "dalle.pt")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    given: dict[str, Any] = {"files": [tmp_path / "vocab.txt"], "tokenizer": "discrete_vae_nano"}
    given["overrides"] = {"depth": 1, "text_vocabulary": len(WORDS)}
    import_checkpoint("dalle_nano", tmp_path / "dalle.pt", tmp_path / "out", **given)
    assert is_whole(tmp_path / "out", painter, drawer, side=7)
    assert TextToImagePipeline(tmp_path / "out")("一只狗")[0].size == (28, 28)
