"""IPT: overlapping crops as in the official code, contrastive loss by hand, training, answers, official names."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from orchard.app.export import export
from orchard.app.train import train
from orchard.errors import UsageError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.nn.contrastive_loss import patch_contrast
from orchard.nn.overlapping_crops import by_crops, crop_weights
from orchard.tasks.super_resolution.answer import answer
from orchard.tasks.super_resolution.settings import Options
from orchard.tasks.super_resolution.upscaling import Upscaler, network_of, self_ensemble
from orchard.weights.official import export_official, load_official

TINY: dict[str, Any] = {"crop": 8, "patch": 2, "width": 4, "heads": 2, "layers": 1}


def stored(golden: Path, case: str, **settings: Any) -> tuple[Any, dict[str, Tensor]]:
    model = create_model("ipt", width=3, heads=3, crop=12, **settings).eval()
    load_official(model, load_file(golden / "ipt" / case / "params.safetensors"), source="official")
    return model, load_file(golden / "ipt" / case / "io.safetensors")


def test_tokens_and_gradients_are_the_official_ones(golden: Path) -> None:
    """Values are up to 1,005 here and the softmax nearly chooses: float32 moves the official gradients by 1.3e-3 of
    their largest entry from those of float64."""
    model, case = stored(golden, "tasks_a", layers=2)
    images = case["in.x"]
    output, tokens = model.upscale_crops(images, 2)
    torch.testing.assert_close(tokens, case["out.body_con"], atol=2e-2, rtol=0)
    output.abs().mean().backward()
    for theirs, ours in {
        "head.0.0.weight": model.heads[0][0].weight,
        "body.encoder.layers.0.self_attn.in_proj_weight": model.body.encoder[0].attention.qkv.weight,
        "body.decoder.layers.0.multihead_attn.out_proj.weight": model.body.decoder[0].cross_attention.out.weight,
        "body.query_embed.weight": model.body.queries,
        "body.position_encoding.pe.weight": model.body.positions,
        "tail.0.1.bias": model.tails[0][1].bias,
    }.items():
        expected = case[f"out.grad.{theirs}"]
        assert (ours.grad.view_as(expected) - expected).abs().max() < 2e-3 * expected.abs().max(), theirs


def test_the_mean_of_eight_ways_is_the_official_self_ensemble(golden: Path) -> None:
    model, case = stored(golden, "chop_a", layers=1, tasks=(2, 1))
    with torch.no_grad():
        found = self_ensemble(lambda images: model.upscale(images, 2), case["in.x"])
    torch.testing.assert_close(found, case["out.x8_task0"], atol=1e-2, rtol=0)


def test_weights_of_crops_along_a_side_of_nine_pixels() -> None:
    """Crops of four at 0, 1, ... 5; the last but one ends where the last does, which counts from its middle on."""
    starts, weights = crop_weights(9, 4, 1)
    assert starts == [0, 1, 2, 3, 4, 5, 5]
    middle = [0, 0.5, 0.5]  # pixel 2 is in the middle of the crops at 0 and 1
    assert weights[:, 0].tolist() == weights[:, 1].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert weights[:2, 2].tolist() == middle[1:] and weights[1:3, 3].tolist() == middle[1:]
    assert weights[-1].tolist() == [0] * 7 + [1, 1]
    starts, weights = crop_weights(13, 8, 2)  # crops at 0, 2, 4 and one more at 5
    assert starts == [0, 2, 4, 5] and weights[-1].nonzero().flatten().tolist() == list(range(17, 26))


@pytest.mark.parametrize("size", [(12, 12), (13, 19), (31, 24)])
def test_crops_of_what_knows_no_edges_are_the_whole(size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size)
    found = by_crops(lambda crops: crops.repeat_interleave(2, 2).repeat_interleave(2, 3), images, 12, 2)
    torch.testing.assert_close(found, images.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_an_image_smaller_than_a_crop_and_tasks_that_keep_the_size() -> None:
    model: Any = create_model("ipt", tasks=(2, 1), **TINY).eval()
    assert Upscaler(model, 2)(Image.new("L", (5, 11))).size == (10, 22)
    assert model.perform(255 * torch.rand(1, 3, 9, 10), 1).shape == (1, 3, 9, 10)
    with pytest.raises(ValueError, match="expected a scale of 2, got 1"):
        model.upscale(torch.rand(1, 3, 8, 8), 1)
    with pytest.raises(UsageError, match="none of the model's tasks enlarges"):
        network_of(create_model("ipt", tasks=(1,), **TINY))
    with pytest.raises(UsageError, match="a crop of 10 pixels does not divide by 4 and into patches of 3"):
        create_model("ipt", crop=10)


def test_contrastive_loss_by_hand() -> None:
    """Two images of two patches: the cosines within are 1, 0, 0, 1 and 1, 1, 1, 1; those across 0, 0 and 1, 1."""
    east, north = [1.0, 0.0], [0.0, 2.0]
    tokens = torch.tensor([[east, north], [north, north]], requires_grad=True)
    first = [0 - 1, 0 - 0, 1 - 0, 1 - 1]  # log exp(across) - within, of patches a, b of image 0
    second = [0 - 1, 1 - 1, 0 - 1, 1 - 1]
    loss = patch_contrast(tokens)
    assert loss.item() == pytest.approx(sum(first + second) / 8)
    loss.backward()
    assert tokens.grad is not None and tokens.grad.isfinite().all() and tokens.grad.abs().max() > 0
    three = patch_contrast(torch.tensor([[east], [north], [north]]))  # log(1 + 1) - 1, log(1 + e) - 1 twice
    assert three.item() == pytest.approx((math.log(2) + 2 * math.log(1 + math.e)) / 3 - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for n in range(8):
        Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8)).resize((50 + n, 41)).save(root / f"{n}.png")
    return root


def test_several_scales_learn_and_answer(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    settings: dict[str, Any] = {
        "architecture": TINY | {"tasks": (2, 3)}, "patch": 8, "patches_per_image": 4, "batch_size": 4,
        "data.workers": 0, "contrastive_weight": 0.1,
    }  # fmt: skip
    metrics = train("ipt_nano", str(folder), tmp_path / "run", **settings | {"max_steps": 4, "log_every": 1})
    assert metrics["test"]["psnr"] == pytest.approx((metrics["test"]["psnr_x2"] + metrics["test"]["psnr_x3"]) / 2)
    head, line = ((tmp_path / "run" / "log.csv").read_text().splitlines()[n].split(",") for n in (0, 1))
    row = dict(zip(head, line, strict=True))
    total = float(row["pixel_loss"]) + 0.1 * float(row["contrastive_loss"])
    assert float(row["loss"]) == pytest.approx(total, rel=1e-3)
    before = load_file(tmp_path / "run" / "model" / "model.safetensors")
    train("ipt_nano", str(folder), tmp_path / "again", **settings | {"max_steps": 2})
    train("ipt_nano", str(folder), tmp_path / "again", **settings | {"max_steps": 4})
    after = load_file(tmp_path / "again" / "model" / "model.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    images = []
    for ensemble in (False, True):
        options = Options(out=tmp_path / str(ensemble), scale=2, self_ensemble=ensemble)
        (found,) = answer(tmp_path / "run", [str(folder / "0.png")], options, print)
        assert found.enlarged == (100, 82)
        images.append(np.asarray(Image.open(found.image)).astype(int))
    assert 0 < abs(images[0] - images[1]).mean() < 40
    assert [written.path.stem for written in export(tmp_path / "run", "onnx", tmp_path / "model.onnx")]
    assert load(tmp_path / "run").model.config.tasks == (2, 3)


def test_wrong_settings_are_said_in_a_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ipt_nano learns from patches of 24 pixels, not of 48; set patch=24"):
        train("ipt_nano", str(folder), tmp_path / "run", patch=48)
    with pytest.raises(UsageError, match="contrastive_weight is for models of patches"):
        train("edsr_nano", str(folder), tmp_path / "run", patch=8, contrastive_weight=0.1)
    one = {"architecture": TINY, "patch": 8, "batch_size": 1, "contrastive_weight": 0.1, "max_steps": 1}
    with pytest.raises(UsageError, match="which has one; set a larger batch_size"):
        train("ipt_nano", str(folder), tmp_path / "run", **one)


@pytest.mark.parametrize(("name", "key"), [("ipt_x4", "ipt_x4_default_options"), ("ipt", "six")])
def test_names_and_shapes_are_those_of_official_files(name: str, key: str, golden: Path) -> None:
    stored = json.loads((golden / "ipt" / "official_checkpoint_keys.json").read_text())
    (theirs,) = (table for title, table in stored.items() if key in title)
    theirs.pop("body.position_encoding.position_ids", None)  # 0, 1, ...: no weight
    with torch.device("meta"):
        model = create_model(name)
    assert {name: list(tensor.shape) for name, tensor in export_official(model, "official").items()} == theirs
