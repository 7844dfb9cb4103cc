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

from orchard.cli.export import export as export_command
from orchard.cli.output import run_app
from orchard.data.contracts import Preprocess
from orchard.errors import OrchardError
from orchard.inference import export as export_module
from orchard.inference.export import export, export_onnx, export_torch, largest_difference
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.weights.portable import Portable, architecture_of, save_portable

CLASSES = ("zero", "one", "zwölf")


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    overrides: dict[str, Any] = {"vit_nano": {"depth": 2}}.get(name, {})
    model = create_model(name, num_classes=len(CLASSES), **overrides).eval()
    for parameter in model.parameters():  # some heads start as zeros, under which all models agree
        nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture
def run(tmp_path: Path) -> Path:
    model = small("lenet5")
    size = model.config.image_size
    preprocess = Preprocess((size, size), 1, (0.5,), (0.25,)).to_json()
    about = Portable("lenet5", architecture_of(model), "image-classification", CLASSES, preprocess)
    save_portable(tmp_path / "run" / "model", model, about)
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["lenet5", "vit_nano"])
def test_both_formats_take_any_batch_and_agree(name: str, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    model = small(name)
    size, channels = model.config.image_size, model.config.in_channels
    images = torch.randn(5, channels, size, size)
    with torch.no_grad():
        expected = model(images)
    assert export_onnx(model, images[:2], tmp_path / "m.onnx") <= 1e-4
    got = ort.InferenceSession(tmp_path / "m.onnx").run(None, {"images": images.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(got), expected, atol=1e-4, rtol=1e-4)
    assert export_torch(model, images[:2], tmp_path / "m.pt2") <= 1e-5
    torch.testing.assert_close(torch.export.load(tmp_path / "m.pt2").module()(images), expected, atol=1e-5, rtol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.pt2"]


def test_the_file_says_what_one_must_know(run: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    path, _ = export(load(run), "onnx")
    assert path == run / "model" / "model.onnx"
    facts = ort.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == list(CLASSES) and facts["model"] == "lenet5"
    assert Preprocess.from_json(json.loads(facts["preprocess"])) == load(run).preprocess
    path, _ = export(load(run), "torch")
    extra = {"about.json": ""}
    torch.export.load(path, extra_files=extra)
    assert json.loads(extra["about.json"]) == facts


def test_a_model_that_differs_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OrchardError, match="differs from the original by"):
        model = small("lenet5")
        largest_difference(model, lambda x: model(x) + 1e-3, torch.zeros(2, 1, 32, 32), "onnx")
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
    assert Path(answer["path"]).stat().st_size == answer["bytes"]
    assert answer["max_abs_difference"] <= 1e-5
    assert command(str(run), "--format", "tflite") == 2
    (run / "a file").touch()
    assert command(str(run), "--format", "torch", "--out", str(run / "a file" / "m.pt2")) == 1
    assert "cannot be written" in capsys.readouterr().err


def command(*words: str) -> int:
    import sys

    app = typer.Typer()
    app.command()(export_command)
    before, sys.argv = sys.argv, ["export", *words]
    try:
        return run_app(app, debug=False)
    finally:
        sys.argv = before
