"""Official checkpoints in and out, what happens to bad ones, and whether the proof can fail."""

import argparse
import collections
import io
import json
import logging
import os
import pickle
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import save_file
from torch import nn

from orchard.cards import Reference, card_of
from orchard.cli.imports import import_model
from orchard.cli.output import run_app
from orchard.cli.verify import verify_models
from orchard.errors import OrchardError, UsageError
from orchard.models import create_model
from orchard.weights import proof
from orchard.weights.foreign import read_checkpoint
from orchard.weights.official import export_official, import_official, load_official
from orchard.weights.portable import load_portable
from orchard.weights.reference import randomise

TINY = dict(width=48, depth=2, heads=3, patch=8, image_size=32, num_classes=10)
BASE = "vit_base_patch16_224"


def vit(**overrides) -> nn.Module:
    """A small ViT with every weight drawn at random."""
    model = create_model(BASE, **TINY | overrides).eval()
    size = model.config.image_size
    randomise(model, lambda: model(torch.randn(2, 3, size, size)), seed=3)
    return model


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return vit()


class Poison:
    """Makes a folder, or calls a function, when it is unpickled."""

    def __init__(self, path: Path, function=os.mkdir):
        self.path, self.function = path, function

    def __reduce__(self):
        return (self.function, (str(self.path),))


def write(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """The state in the format that the file's ending asks for."""
    if path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})
    elif path.suffix == ".safetensors":
        save_file(state, path)
    elif path.suffix == ".json":
        shards = {"a.safetensors": dict(list(state.items())[:5]), "b.safetensors": dict(list(state.items())[5:])}
        for name, part in shards.items():
            save_file(part, path.parent / name)
        places = {key: name for name, part in shards.items() for key in part}
        path.write_text(json.dumps({"weight_map": places}))
    else:
        torch.save(state, path)
    return path


FORMATS = ["c.npz", "c.safetensors", "c.safetensors.index.json", "c.pth", "c.pt", "c.bin"]


def one_line(caught: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Files


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_reads_the_same(model, tmp_path, name):
    state = export_official(model, "timm")
    read = read_checkpoint(write(tmp_path / name, state))
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


WRAPPED = ["state_dict", "model", "model_state_dict", "net", "ema", "model.state_dict"]


@pytest.mark.parametrize("key", WRAPPED)
def test_training_checkpoints_are_unwrapped(model, tmp_path, key):
    state = found = export_official(model, "timm")
    for name in reversed(key.split(".")):
        found = {"epoch": 3, "config": {"model": {"depth": 2}}, name: found}
    torch.save(found, tmp_path / "c.pth.tar")
    assert read_checkpoint(tmp_path / "c.pth.tar").keys() == state.keys()


def test_an_average_is_taken_where_it_is_alone(tmp_path):
    torch.save({"ema": {"a": torch.zeros(1)}, "model": {"a": torch.ones(1)}}, tmp_path / "c.pth")
    assert read_checkpoint(tmp_path / "c.pth")["a"] == 1


class Unknown:
    def __init__(self):
        self.inside = [Unknown.__name__, {"fields": (1, 2)}]


class Settings(dict):
    """As a configuration is that can be asked by key and by attribute."""


@pytest.mark.parametrize("archive", [True, False])
def test_what_lies_beside_the_weights_is_inert(tmp_path, archive):
    beside = {
        "args": argparse.Namespace(lr=0.1, out=Path("x")),
        "best": np.float64(3),
        "history": np.ones(2),
        "unknown": Unknown(),
        "settings": Settings(a=1),
        "meters": collections.defaultdict(list, loss=[1.0]),
        "evil": Poison(tmp_path / "it-ran", logging.FileHandler),
    }
    before = set(torch.serialization.get_safe_globals())
    weights = {"a": torch.randn(2, 3), "b": nn.Parameter(torch.ones(1))}
    torch.save({"state_dict": weights, **beside}, tmp_path / "c.pt", _use_new_zipfile_serialization=archive)
    found = read_checkpoint(tmp_path / "c.pt")
    assert found.keys() == weights.keys() and torch.equal(found["a"], weights["a"])
    assert not (tmp_path / "it-ran").exists() and set(torch.serialization.get_safe_globals()) == before


def test_what_is_no_state_dict_says_what_it_is(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(OrchardError, match=r"holds a whole torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(tmp_path / "whole.pt")
    torch.save({"model": {"a": Unknown()}}, tmp_path / "c.pt")
    with pytest.raises(OrchardError, match="'model' is a dict, expected a tensor"):
        read_checkpoint(tmp_path / "c.pt")
    torch.save({"a": torch.zeros(1).expand(10**9)}, tmp_path / "wide.pt")
    with pytest.raises(OrchardError, match="'a' claims 1,000,000,000 numbers and has 1"):
        read_checkpoint(tmp_path / "wide.pt")


@pytest.mark.parametrize("kind", ["zeros", "header", "lzma", "encrypted"])
def test_a_small_npz_takes_little_memory(tmp_path, kind):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    packing = zipfile.ZIP_LZMA if kind == "lzma" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(tmp_path / "c.npz", "w", packing) as archive:
        archive.writestr("a.npy", bytes(10**8) if kind == "zeros" else header.getvalue() + b"1234")
    if kind == "encrypted":
        content = bytearray((tmp_path / "c.npz").read_bytes())
        content[content.index(b"PK\x01\x02") + 8] |= 1
        (tmp_path / "c.npz").write_bytes(content)
    expected = {"zeros": "would unpack to", "header": "claims the shape", "lzma": "packed", "encrypted": "encrypted"}
    with pytest.raises(OrchardError, match=expected[kind]) as caught:
        read_checkpoint(tmp_path / "c.npz")
    assert len(one_line(caught)) < 500


@pytest.mark.parametrize("name", ["c.pth", "c.bin", "c.npz", "old.pt"])
def test_a_poisoned_file_runs_nothing(tmp_path, name):
    path, sign = tmp_path / name, tmp_path / "it-ran"
    if name == "c.npz":
        np.savez(path, weight=np.array([Poison(sign)], dtype=object))
    elif name == "old.pt":
        path.write_bytes(pickle.dumps({"weight": Poison(sign)}))
    else:
        torch.save({"state_dict": {"weight": Poison(sign)}}, path)
    with pytest.raises(OrchardError) as caught:
        read_checkpoint(path)
    assert str(path) in one_line(caught)
    assert not sign.exists()


def test_the_poison_of_these_tests_is_real(tmp_path):
    pickle.loads(pickle.dumps(Poison(tmp_path / "it-ran")))
    assert (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_is_named(model, tmp_path, name, share):
    path = write(tmp_path / name, export_official(model, "timm"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(OrchardError) as caught:
        read_checkpoint(path)
    assert str(path) in one_line(caught)


def test_a_shard_that_is_missing_is_named(model, tmp_path):
    path = write(tmp_path / "c.safetensors.index.json", export_official(model, "timm"))
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(OrchardError, match=r"b\.safetensors"):
        read_checkpoint(path)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(OrchardError, match=r"gone\.npz is missing"):
        read_checkpoint(tmp_path / "gone.npz")
    (tmp_path / "c.h5").write_bytes(b"?")
    with pytest.raises(UsageError, match=r"c\.h5: expected a checkpoint in \.npz"):
        read_checkpoint(tmp_path / "c.h5")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(OrchardError, match="holds a list, expected a state dict"):
        read_checkpoint(tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    with pytest.raises(OrchardError, match="'epoch' is a int, expected a tensor"):
        read_checkpoint(tmp_path / "epoch.pth")
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(OrchardError, match="holds no tensors"):
        read_checkpoint(tmp_path / "empty.npz")


# Names


@pytest.mark.parametrize("source", ["google", "timm", "torchvision", "hf", "hf4"])
def test_the_source_is_found_by_its_names(model, tmp_path, source):
    fresh = create_model(BASE, **TINY)
    path = write(tmp_path / "c.safetensors", export_official(model, source))
    went = load_official(fresh, path)
    assert went == load_official(create_model(BASE, **TINY), path, source=source)
    assert went.keys() == model.state_dict().keys()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(fresh.eval()(images), model(images))


def test_it_says_what_went_where(model):
    went = load_official(create_model(BASE, **TINY), export_official(model, "hf4"), "hf4")
    layer = "vit.encoder.layer.1.attention.attention."
    assert went["blocks.1.attention.qkv.weight"] == tuple(f"{layer}{p}.weight" for p in ("query", "key", "value"))


def test_what_is_exported_are_copies(model):
    state = export_official(model, "hf")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for tensor in state.values():
        tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_checkpoint_of_another_landmark_names_what_does_not_fit(tmp_path):
    path = tmp_path / "other.pth"
    torch.save(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(8, 2)).state_dict(), path)
    fresh = create_model(BASE, **TINY)
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    with pytest.raises(OrchardError) as caught:
        load_official(fresh, path)
    assert str(path) in one_line(caught) and "its first is '0.weight'" in str(caught.value)
    with pytest.raises(OrchardError) as caught:
        load_official(fresh, path, "timm")
    assert "has no 'cls_token', which our 'class_token' is made of" in one_line(caught)
    assert all(torch.equal(tensor, before[name]) for name, tensor in fresh.state_dict().items())


def test_shapes_and_left_overs_are_named(model):
    state = export_official(model, "timm")
    with pytest.raises(OrchardError, match=r"'head.weight' has shape \(10, 48\).*\(11, 48\)"):
        load_official(create_model(BASE, **TINY | {"num_classes": 11}), state, "timm")
    with pytest.raises(OrchardError, match="1 tensors of the checkpoint are left over, 'dist_token' among them"):
        load_official(create_model(BASE, **TINY), state | {"dist_token": torch.zeros(1)}, "timm")
    google = export_official(model, "google")
    google["embedding/kernel"] = google["embedding/kernel"].flatten()
    with pytest.raises(OrchardError, match=r"'embedding/kernel' has shape .*does not make our 'patch_embed.weight'"):
        load_official(create_model(BASE, **TINY), google, "google")


def test_files_from_before_batch_norm_counted_its_steps_are_read():
    trained = create_model("resnet_nano")
    state = export_official(trained, "torchvision")
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    fresh = create_model("resnet_nano")
    load_official(fresh, old, "torchvision")
    assert all(torch.equal(tensor, fresh.state_dict()[name]) for name, tensor in trained.state_dict().items())
    del old["bn1.running_mean"]
    with pytest.raises(OrchardError, match=r"has no 'bn1\.running_mean'"):
        load_official(fresh, old, "torchvision")


def test_unknown_sources_and_models_are_refused(model):
    with pytest.raises(UsageError, match="unknown source of names 'tim'; did you mean timm"):
        load_official(create_model(BASE, **TINY), {}, "tim")
    with pytest.raises(OrchardError, match="Linear is no landmark of Orchard"):
        load_official(nn.Linear(2, 2), {}, "timm")


# Import


def test_a_google_checkpoint_with_pre_logits_is_imported_whole(tmp_path):
    trained = vit(image_size=48, pre_logits=20, tanh_gelu=True, num_classes=17)
    path = write(tmp_path / "ViT.npz", export_official(trained, "google"))
    sizes = {key: TINY[key] for key in ("width", "depth", "heads", "patch")}
    about, went = import_official(BASE, path, tmp_path / "model", **sizes)
    assert went.keys() == trained.state_dict().keys()
    assert about.classes == tuple(str(n) for n in range(17))
    assert about.preprocess["mean"] == (0.5, 0.5, 0.5) and about.preprocess["size"] == (48, 48)
    described, loaded = load_portable(tmp_path / "model")
    assert loaded.config == trained.config and described.model == BASE
    images = torch.randn(2, 3, 48, 48)
    assert torch.equal(loaded(images), trained(images))


def test_other_sources_keep_imagenet_s_preprocessing(model, tmp_path):
    path = write(tmp_path / "c.pth", export_official(model, "torchvision"))
    about, _ = import_official(BASE, path, tmp_path / "model", **TINY)
    assert about.preprocess["mean"] == (0.485, 0.456, 0.406) and about.preprocess["crop"] == 0.875
    assert not load_portable(tmp_path / "model")[1].config.tanh_gelu


def test_import_leaves_an_existing_folder_alone(model, tmp_path):
    path = write(tmp_path / "c.pth", export_official(model, "timm"))
    with pytest.raises(OrchardError, match="exists already"):
        import_official(BASE, path, tmp_path, **TINY)


def test_a_folder_that_cannot_be_written_is_named(model, tmp_path):
    path = write(tmp_path / "c.pth", export_official(model, "timm"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OrchardError, match=r"cannot write .*file/model"):
        import_official(BASE, path, tmp_path / "file" / "model", **TINY)


def run(monkeypatch, *arguments: str) -> int:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("import")(import_model)
    app.command("verify")(verify_models)
    monkeypatch.setattr(sys, "argv", ["orchard", *arguments])
    return run_app(app, debug=False)


def test_the_import_command(model, tmp_path, monkeypatch, capsys):
    path, out = write(tmp_path / "c.pth", export_official(model, "timm")), tmp_path / "model"
    settings = [word for key in ("width", "depth", "heads", "patch") for word in ("--set", f"{key}={TINY[key]}")]
    assert run(monkeypatch, "import", BASE, str(path), "--out", str(out), *settings, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["classes"] == 10 and answer["tensors"] == len(model.state_dict()) and answer["out"] == str(out)
    assert run(monkeypatch, "import", BASE, str(path), "--out", str(out), *settings) == 1
    assert "exists already" in capsys.readouterr().err
    assert run(monkeypatch, "import", "vit_bas", str(path), "--out", str(tmp_path / "b")) == 2
    assert "did you mean" in capsys.readouterr().err


# The proof


def reference(**changes) -> Reference:
    row = next(row for row in card_of("vit").references if row.reference.startswith("timm:") and row.ours)
    return replace(row, **changes)


def test_the_proof_passes_and_says_what_was_compared():
    found = proof.compare(reference())
    assert found.ok and found.max_abs_difference < 1e-5 and found.gradient_difference < 1e-4
    assert "width=48" in found.compared and found.origin.startswith("timm 1.")


@pytest.mark.parametrize(
    "wrong",
    [{"tanh_gelu": True}, {"norm_eps": 1e-2}, {"heads": 4}, {"pool": "mean"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_the_proof_fails_on_another_function(wrong):
    row = reference()
    found = proof.compare(replace(row, ours=row.ours | wrong))
    assert not found.ok and found.max_abs_difference > row.tolerance and not found.problem


def test_the_proof_fails_on_names_that_do_not_fit():
    found = proof.compare(reference(source="torchvision"))
    assert not found.ok and found.max_abs_difference is None and "'class_token'" in found.problem


def test_verify_gives_the_rows_that_scripts_lean_on():
    rows = proof.verify("vit_nano")
    assert len(rows) == 1
    (row,) = rows
    assert {"name", "reference", "max_abs_difference", "parameters", "ok"} <= row.keys()
    assert (
        row["ok"] and row["name"] == "vit_nano" and row["parameters"] == card_of("vit").variants["vit_nano"].parameters
    )
    assert "timm:" in row["reference"] and "vit_base_patch16_224 with" in row["compared"]
    assert row["max_abs_difference"] <= 1e-5
    json.dumps(row)


def test_what_no_reference_was_built_with_is_said(monkeypatch):
    monkeypatch.setattr(proof, "compare", lambda row, golden: proof.Comparison("timm:x", "timm", "x", 1e-5, 0.0))
    (row,) = proof.verify("resnet20")
    assert row["ok"] and row["proof"] == "shared"
    assert set(row["not_compared"]) == {"stem=3x3", "shortcut=pad"}
    assert proof.verify("resnet50")[0]["not_compared"] == []


def test_a_landmark_without_reference_does_not_claim_one():
    (row,) = proof.verify("lenet5_1998")
    assert row["proof"] == "size" and row["reference"] == "none" and row["max_abs_difference"] is None


def test_verify_fails_on_a_count_that_is_not_what_was_counted(monkeypatch):
    monkeypatch.setattr(proof, "parameters_of", lambda name: 7)
    monkeypatch.setattr(proof, "compare", lambda row, golden: proof.Comparison("timm:x", "timm", "x", 1e-5, 0.0))
    (row,) = proof.verify(["vit_nano"])
    assert not row["ok"] and "7 parameters, cards/sizes.json says" in row["problem"]


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(OrchardError, match=r"needs timm: install it with pip install 'orchard\[test\]'"):
        proof.compare(reference())


def test_a_missing_golden_case_is_named(tmp_path):
    row = next(row for row in card_of("vit").references if row.reference.startswith("golden:"))
    with pytest.raises(OrchardError, match=r"is missing; name the folder that holds it with --golden"):
        proof.compare(row, tmp_path)


def test_the_verify_command(tmp_path, monkeypatch, capsys):
    found = proof.Comparison("timm:x", "timm 1", "x with width=2", 1e-5, 3e-7, None, 2e-6)
    monkeypatch.setattr(proof, "compare", lambda row, golden: found)
    pages = tmp_path / "docs" / "proofs"
    names = ("vit_nano", "vit_base_patch16_224", "gpt2_nano")
    assert run(monkeypatch, "verify", *names, "--write", str(pages), "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["max_abs_difference"] == 3e-7
    assert {page.name for page in pages.iterdir()} == {"index.md", "vision-transformer.md", "language-model.md"}
    page = (pages / "vision-transformer.md").read_text()
    assert f"`vit_nano` | {card_of('vit').variants['vit_nano'].parameters:,} | shared |" in page
    assert "| `timm:x` | timm 1 | x with width=2 | 3.0e-07 |  | 2.0e-06 |" in page
    own = len(card_of("vit").references) - 1  # one is of a hybrid
    index = (pages / "index.md").read_text()
    assert f"| [vision transformer](vision-transformer.md) | ViT | 2 | {own} | 3.0e-07 |  | 2.0e-06 |" in index
    assert "| [language model](language-model.md) | GPT-2 | 1 | 0 |  |  |  |" in index
    assert run(monkeypatch, "verify") == 2
    assert "say --all" in capsys.readouterr().err
    monkeypatch.setattr(proof, "compare", lambda row, golden: replace(found, max_abs_difference=1e-3))
    assert run(monkeypatch, "verify", "vit_base_patch16_224", "--write", str(pages)) == 1
    assert f"| {own}, **{own} failed** |" in (pages / "index.md").read_text()
    assert "| NO: the difference is too large |" in (pages / "vision-transformer.md").read_text()
    capsys.readouterr()
    assert run(monkeypatch, "verify", "vit_nano") == 1
    captured = capsys.readouterr()
    assert "1 of 1 proofs failed" in captured.err and "the difference is larger than 1e-05" in captured.out


def test_a_deep_network_without_norms_still_says_something():
    layers = [module for _ in range(30) for module in (nn.Linear(64, 64), nn.ReLU())]
    network, images = nn.Sequential(*layers, nn.Linear(64, 10)), torch.randn(4, 64)
    randomise(network, lambda: network(images), seed=0)
    assert 0.5 < network(images).std() < 2
