"""Exported models compute what the originals do, or are not written."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from torch import nn

from orchard.app.export import export
from orchard.cards import card_of
from orchard.cli.export import export as export_command
from orchard.cli.output import run_app
from orchard.data.contracts import Preprocess
from orchard.errors import OrchardError
from orchard.inference import export as export_module
from orchard.inference.export import Entry, export_onnx, export_torch, largest_difference
from orchard.inference.loading import Loaded, load
from orchard.models import create_model, landmark_of
from orchard.tasks.registry import task_named
from orchard.weights.official import preprocess_of
from orchard.weights.portable import Portable, architecture_of, save_portable
from orchard.weights.reference import randomise

CLASSES = ("zero", "one", "zwölf")


def entries_of(loaded: Loaded) -> list[Entry]:
    task = task_named(loaded.task)
    found: list[Entry] = task.load(str(task.entries))(loaded)
    return found


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    overrides: dict[str, Any] = {"vit_nano": {"depth": 2}}.get(name, {})
    model = create_model(name, num_classes=len(CLASSES), **overrides).eval()
    for parameter in model.parameters():  # some heads start as zeros, under which all models agree
        nn.init.normal_(parameter, std=0.1)
    return model


def saved(folder: Path, name: str, model: nn.Module, classes: tuple[str, ...] = (), **more: Any) -> Path:
    config: Any = model.config
    preprocess = preprocess_of(landmark_of(name), config, "") if hasattr(config, "image_size") else {}
    task = card_of(name).task
    save_portable(folder / "model", model, Portable(name, architecture_of(model), task, classes, preprocess, **more))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return saved(tmp_path / "run", "lenet5", small("lenet5"), CLASSES)


@pytest.mark.parametrize("name", ["lenet5", "vit_nano"])
def test_both_formats_take_any_batch_and_agree(name: str, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    model = small(name)
    images = torch.randn(5, model.config.in_channels, model.config.image_size, model.config.image_size)
    with torch.no_grad():
        expected = model(images)
    (entry,) = entries_of(load(saved(tmp_path / "run", name, model, CLASSES)))
    assert export_onnx(entry, tmp_path / "out" / "m.onnx") <= 1e-4
    got = ort.InferenceSession(tmp_path / "out" / "m.onnx").run(None, {"images": images.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(got), expected, atol=1e-4, rtol=1e-4)
    assert export_torch(entry, tmp_path / "out" / "m.pt2") <= 1e-5
    got = torch.export.load(tmp_path / "out" / "m.pt2").module()(images)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["m.onnx", "m.pt2"]


FUNCTIONS = {
    "vqvae_nano": {"encode": ("images", "codes"), "decode": ("codes", "images")},
    "clip_nano": {"image": ("images", "image_features"), "text": ("tokens", "text_features")},
    "gpt2_nano": {"": ("tokens", "logits")},
    "painter_nano": {"": ("tokens", "logits")},
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_task_has_its_files(name: str, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    small: dict[str, Any] = {"gpt2_nano": {"depth": 1, "context": 16}, "painter_nano": {"depth": 1}}
    model = create_model(name, **small.get(name, {})).eval()
    example = landmark_of(name).example(model.config, 2, torch.Generator().manual_seed(0))
    randomise(model, lambda: model(**example), seed=0)
    folder = saved(tmp_path / "run", name, model, facts={"known": "by the file"})
    for kind in ("onnx", "torch"):
        written = export(load(folder), kind)
        assert {one.entry for one in written} == FUNCTIONS[name].keys()
        assert all(one.difference <= 1e-4 for one in written)
    for function, (given, answered) in FUNCTIONS[name].items():
        path = folder / "model" / (f"model.{function}.onnx" if function else "model.onnx")
        session = ort.InferenceSession(path)
        assert [session.get_inputs()[0].name, session.get_outputs()[0].name] == [given, answered]
        facts = session.get_modelmeta().custom_metadata_map
        assert json.loads(facts["facts"]) == {"known": "by the file"} and facts["model"] == name
        assert facts.get("function", "") == function
        if name == "clip_nano":
            assert float(facts["logit_scale"]) == pytest.approx(float(model.logit_scale.detach().exp()))


def test_sequences_that_are_shorter_may_be_filled_up_with_anything(tmp_path: Path) -> None:
    model = create_model("gpt2_nano", depth=1, context=16).eval()
    (written,) = export(load(saved(tmp_path / "run", "gpt2_nano", model)), "torch")
    tokens = torch.randint(256, (3, 16))
    with torch.no_grad():
        expected = model(tokens[:, :5])
    torch.testing.assert_close(torch.export.load(written.path).module()(tokens)[:, :5], expected, atol=1e-5, rtol=0)


def test_the_file_says_what_one_must_know(run: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    (written,) = export(load(run), "onnx")
    assert written.path == run / "model" / "model.onnx"
    facts = ort.InferenceSession(written.path).get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == list(CLASSES) and facts["model"] == "lenet5"
    assert Preprocess.from_json(json.loads(facts["preprocess"])) == load(run).preprocess
    (written,) = export(load(run), "torch")
    extra = {"about.json": ""}
    torch.export.load(written.path, extra_files=extra)
    assert json.loads(extra["about.json"]) == facts


def test_a_model_that_differs_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (entry,) = entries_of(load(run))
    with pytest.raises(OrchardError, match="differs from the original by"):
        largest_difference(entry, lambda inputs: entry.module(*inputs.values()) + 1e-3, "onnx")
    monkeypatch.setitem(export_module.TOLERANCE, "torch", -1.0)
    out = tmp_path / "out" / "m.pt2"
    assert command(str(run), "--format", "torch", "--out", str(out)) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert not list(out.parent.iterdir())


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    plain_import = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "onnxruntime":
            raise ModuleNotFoundError("no", name=name)
        return plain_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OrchardError, match=r"needs onnxruntime: pip install 'orchard\[export\]'"):
        export(load(run), "onnx")


def test_the_command_answers_in_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(str(run), "--format", "torch", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    (file,) = answer["files"]
    assert Path(file["path"]).stat().st_size == file["bytes"]
    assert file["max_abs_difference"] <= 1e-5
    assert command(str(run), "--format", "tflite") == 2
    (run / "a file").touch()
    assert command(str(run), "--format", "torch", "--out", str(run / "a file" / "m.pt2")) == 1
    assert "cannot write" in capsys.readouterr().err
    assert command(str(run), "--format", "torch", "--out", "/dev/full") == 1
    assert capsys.readouterr().err == "error: cannot write /dev/full: No space left on device; nothing was written\n"


def command(*words: str) -> int:
    import sys

    app = typer.Typer()
    app.command()(export_command)
    before, sys.argv = sys.argv, ["export", *words]
    try:
        return run_app(app, debug=False)
    finally:
        sys.argv = before
