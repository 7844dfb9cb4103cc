"""IPT without noise and rain: official files of one task and of six, training, images of any size, exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from test_image_restoration import picture

from orchard.app.evaluate import evaluate
from orchard.app.export import export
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.errors import UsageError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.weights.official import export_official, read_official

TINY: dict[str, Any] = {"crop": 8, "patch": 2, "width": 4, "heads": 2, "layers": 1}
SETTINGS: dict[str, Any] = {
    "architecture": TINY, "patch": 8, "patches_per_image": 4, "batch_size": 4, "data.workers": 0, "log_every": 1,
    "degradation": "rain:5-25",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for n in range(8):
        picture(n, 30 + n, 27, "L" if n == 3 else "RGB").save(root / f"{n}.png")
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    train("ipt_denoise_nano", str(folder), path, **SETTINGS, max_steps=4)
    return path


def test_names_and_shapes_are_those_of_official_files_of_one_task(golden: Path) -> None:
    """Those of x4 without what enlarges."""
    stored = json.loads((golden / "ipt" / "official_checkpoint_keys.json").read_text())
    theirs = dict(stored["ipt_x4_default_options"])
    theirs.pop("body.position_encoding.position_ids", None)
    theirs = {name: shape for name, shape in theirs.items() if not name.startswith("tail.0.0.")}
    with torch.device("meta"):
        found = export_official(create_model("ipt_denoise"), "official")
    assert {name: list(tensor.shape) for name, tensor in found.items()} == theirs


def test_of_an_official_file_of_six_tasks_one_restores(golden: Path) -> None:
    at = golden / "ipt" / "tasks_a"
    small = {"crop": 12, "width": 3, "heads": 3, "layers": 2, "tasks": [2, 3, 4, 1, 1, 1]}
    case = load_file(at / "io.safetensors")
    for place in (3, 4, 5):
        overrides = small | {"restores_by": place}
        read = read_official("ipt_denoise", load_file(at / "params.safetensors"), None, overrides, "six.pt")
        assert read.about.task == "image-restoration" and read.about.architecture["restores_by"] == place
        found = read.model.restore(case["in.x"], None)  # type: ignore[operator]
        torch.testing.assert_close(found, case[f"out.output_task{place}"], atol=2e-2, rtol=0)
    with pytest.raises(UsageError, match=r"restores_by is 1, expected the place of a task of scale 1 .*: 3 or 4 or 5"):
        create_model("ipt_denoise", **small | {"restores_by": 1})
    with pytest.raises(UsageError, match="there is none"):
        create_model("ipt_denoise", tasks=[2])


def test_it_learns_from_patches_of_its_crop(run: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ipt_denoise_nano learns from patches of 8 pixels, not of 12; set patch=8"):
        train("ipt_denoise_nano", str(folder), tmp_path / "wrong", **SETTINGS | {"patch": 12})
    train("ipt_denoise_nano", str(folder), tmp_path / "again", **SETTINGS, max_steps=2)
    train("ipt_denoise_nano", str(folder), tmp_path / "again", **SETTINGS, max_steps=4)
    before, after = (load_file(at / "model" / "model.safetensors") for at in (run, tmp_path / "again"))
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    found = evaluate(run, str(folder), settings={"evaluation.degradation": "noise:0-30"})["test"]
    assert {"psnr_15", "psnr_25"} <= found.keys() and "psnr_50" not in found


def test_images_of_any_size_are_restored(run: Path) -> None:
    restore = pipeline(run)
    for size, mode in (((8, 8), "RGB"), ((5, 3), "RGB"), ((31, 17), "L")):
        found = restore(picture(1, *size, mode))
        assert found.size == size and found.mode == mode
    model: Any = load(run).model
    image = torch.from_numpy(np.asarray(picture(1, 21, 19)).copy()).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        whole = model.perform(image, 0).round().clamp(0, 255)[0]
    found = np.asarray(restore(picture(1, 21, 19))).astype(int)
    assert abs(found - whole.permute(1, 2, 0).numpy().astype(int)).max() <= 1  # of rounding


def test_an_export_has_the_size_of_a_crop(run: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    export(run, "onnx", tmp_path / "model.onnx")
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"))
    assert session.get_inputs()[0].shape[1:] == [3, 8, 8]
    images = 255 * torch.rand(2, 3, 8, 8)
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        expected = load(run).model.restore(images)  # type: ignore[operator]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-2)
    assert Image.fromarray(found[0].transpose(1, 2, 0).clip(0, 255).astype(np.uint8)).size == (8, 8)
