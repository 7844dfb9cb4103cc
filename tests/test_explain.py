"""What a classifier looks at: each method against its formula, and the files that `orchard explain` writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from commands import orchard
from PIL import Image
from torch import Tensor, nn

import orchard as package
from orchard.data.contracts import ImageData, Preprocess
from orchard.errors import OrchardError, UsageError
from orchard.models import create_model
from orchard.tasks.image_classification.explain import atlas, images
from orchard.tasks.image_classification.explain.attributions import (
    attention_rollout,
    default_method,
    grad_cam,
    integrated_gradients,
)
from orchard.tasks.image_classification.explain.features import of_classes, of_units, visualise
from orchard.weights.portable import Portable, architecture_of, save_portable

CLASSES = tuple(f"class {n}" for n in range(10))


def saved(folder: Path, name: str, **architecture: object) -> Path:
    """A model with random weights that say something, as a run has it."""
    torch.manual_seed(0)
    model = create_model(name, **{"in_channels": 1, "num_classes": 10, **architecture})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    side = model.config.image_size
    preprocess = Preprocess((side, side), 1, (0.5,), (0.25,), resize="stretch")
    about = Portable(name, architecture_of(model), "image-classification", CLASSES, preprocess.to_json())
    save_portable(folder / "model", model, about)
    return folder


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("lenet"), "lenet5")


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("vit"), "vit_nano")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for n, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (4, 40, 30, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{n}.png")
    (folder / "2.png").write_bytes(b"not a picture")
    return folder


class TinyCnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(2, 5, 3), nn.ReLU(inplace=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.conv(x)).mean((2, 3)))


def test_grad_cam_is_the_formula_and_captums() -> None:
    torch.manual_seed(0)
    model, x, targets = TinyCnn().eval(), torch.randn(4, 2, 9, 8), torch.tensor([2, 0, 1, 2])
    maps = model.conv(x).relu()  # the mean pool gives every cell of channel k the gradient w_k / cells
    by_hand = ((model.head.weight[targets] / (7 * 6))[:, :, None, None] * maps).sum(1).relu()
    found = grad_cam(model, x, targets)
    assert found.shape == (4, 7, 6) and found.max() > 0
    torch.testing.assert_close(found, by_hand.detach())

    resnet = create_model("resnet_nano", in_channels=1).eval()
    x, targets = torch.randn(2, 1, 32, 32), torch.tensor([3, 7])
    captums = LayerGradCam(resnet, resnet.layers[-1]).attribute(x, targets, relu_attributions=True)
    torch.testing.assert_close(grad_cam(resnet, x, targets), captums[:, 0].detach())


def test_integrated_gradients_of_a_linear_model_are_its_terms_and_add_up_in_others() -> None:
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x, base, targets = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2), torch.tensor([2, 0])
    found, missing = integrated_gradients(linear, x, targets, base)
    torch.testing.assert_close(found, linear[1].weight[targets].view(2, 3, 2, 2) * (x - base))
    assert missing.max() < 1e-5

    model = create_model("lenet5").eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    x, base, targets = torch.rand(3, 1, 32, 32), torch.zeros(3, 1, 32, 32), torch.tensor([0, 5, 9])
    found, missing = integrated_gradients(model, x, targets, base)
    difference = (model(x) - model(base)).gather(1, targets[:, None])[:, 0]
    assert (found.flatten(1).sum(1) - difference).abs().max() < 0.01 * difference.abs().min() + 1e-4
    assert difference.abs().min() > 0.1 and torch.allclose(missing, (found.flatten(1).sum(1) - difference).abs())


def test_without_captum_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    with pytest.raises(OrchardError, match=r"orchard\[explain\]"):
        integrated_gradients(nn.Identity(), torch.zeros(1, 2), torch.tensor([0]), torch.zeros(1, 2))


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_attention_rollout_is_the_product_of_all_blocks(pool: str) -> None:
    torch.manual_seed(0)
    model = create_model("vit_nano", depth=3, pool=pool, class_token=pool == "token").eval()
    x = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        hidden, product = model.tokens(x), None
        for block in model.blocks:
            weights = block.attention.weights(block.norm1(hidden)).mean(1)
            step = (0.5 * weights + 0.5 * torch.eye(weights.shape[-1])).double()
            product = step if product is None else step @ product
            hidden = block(hidden)
    rows = product[:, 0, 1:] if pool == "token" else product.mean(1)
    found = attention_rollout(model, x)
    torch.testing.assert_close(found.double(), rows.view(2, 4, 4), atol=1e-6, rtol=1e-5)
    if pool == "mean":
        torch.testing.assert_close(found.sum((1, 2)), torch.ones(2))
    assert default_method(model, False) == "attention-rollout" and default_method(model, True) == "integrated-gradients"


def test_features_raise_what_they_are_made_for_and_are_the_same_again() -> None:
    torch.manual_seed(0)
    model: nn.Module = create_model("resnet_nano", in_channels=3).eval()
    nn.init.normal_(model.head.weight)  # fresh, it hardly says anything
    look = Preprocess((32, 32), 3, (0.5,) * 3, (0.25,) * 3)
    for objective in (of_classes(model, [1, 4]), of_units(model, [(0, 3), (2, 60)])):
        _, before = visualise(model, look, objective, 2, steps=0)
        made, after = visualise(model, look, objective, 2, steps=12)
        assert (after > before).all()
        assert made.shape == (2, 3, 32, 32) and made.min() >= 0 and made.max() <= 1
    again, _ = visualise(model, look, objective, 2, steps=12)
    assert torch.equal(made, again)


def test_the_command_writes_a_heat_map_for_each_image_and_names_a_bad_one(
    lenet: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert orchard("explain", lenet, pictures, "--out", tmp_path / "a", "--json") == 1
    out = capsys.readouterr()
    found = json.loads(out.out)
    rows = found["explanations"]
    assert found["method"] == "grad-cam" and "grad-cam: chosen for lenet5" in out.err
    assert [("error" in row) for row in rows] == [False, False, True, False] and "1 of 4 could not" in out.err
    assert Image.open(rows[0]["file"]).size == (384, 512)  # the whole image of 30 x 40, not the model's square
    page = (tmp_path / "a" / "explain.html").read_text()
    assert page.count("<h3>") == 3 and "2.png" not in page

    assert orchard("explain", lenet, pictures / "0.png", "--class", "class 3", "--method", "integrated-gradients",
                   "--out", tmp_path / "b") == 0  # fmt: skip
    assert (tmp_path / "b" / "0-class_3.png").exists() and "class 3" in capsys.readouterr().out


def test_python_takes_images_in_memory_and_a_transformer_rolls_out(vit: Path, tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 20), dtype=np.uint8))
    found = package.explain(vit, [image, image], out=tmp_path)
    assert found["method"] == "attention-rollout"
    assert [Path(row["file"]).name for row in found["explanations"]] == ["image_0.png", "image_1.png"]


def test_ctrl_c_keeps_what_is_done(
    lenet: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = images._explain_one, []

    def interrupted(*given: object) -> object:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(images, "_explain_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        package.explain(lenet, str(pictures), out=tmp_path)
    assert (tmp_path / "0.png").exists() and (tmp_path / "explain.html").read_text().count("<h3>") == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["{pictures}/0.png", "--class", "clas 3"], "did you mean class 3"),
        (["{pictures}/0.png", "--method", "gradcam"], "did you mean grad-cam"),
        (["{pictures}/0.png", "--method", "attention-rollout"], "no attention weights"),
        (["{pictures}/none.png"], "no picture there"),
        ([], "name an image"),
        (["--method", "features", "--unit", "7:0"], "stages 1 to 2"),
        (["--method", "features", "--unit", "1:99"], "channels 0 to 5"),
        (["--method", "features", "--unit", "last"], "expected STAGE:CHANNEL"),
        (["--method", "features", "{pictures}"], "takes no images"),
        (["{pictures}", "--unit", "1:0"], "units are for"),
        (["--method", "atlas"], "needs data"),
        (["{pictures}", "--data", "digits"], "takes no --data"),
    ],
)
def test_a_wrong_call_is_one_line(
    lenet: Path, pictures: Path, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert orchard("explain", lenet, *(word.format(pictures=pictures) for word in words)) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(error) == 1 and expected in error[0]


def test_what_cannot_be_explained_is_said(vit: Path, tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(UsageError, match="same for every class"):
        package.explain(vit, str(pictures), method="attention-rollout", class_name="class 1")
    with pytest.raises(UsageError, match=r"transformer.*use attention-rollout"):
        package.explain(vit, str(pictures), method="grad-cam")
    (tmp_path / "config.json").write_text(
        json.dumps({"model": "gpt2_nano", "architecture": {}, "task": "text-generation"})
    )
    with pytest.raises(UsageError, match="is for text-generation; explained are models for image-classification"):
        package.explain(tmp_path, str(pictures))


def test_an_atlas_keeps_groups_apart_and_shows_their_own_images(digits: ImageData) -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], 30)
    activations = (np.eye(3)[groups] * 10).repeat(4, axis=1) + rng.normal(size=(90, 12))
    indices = np.arange(90)
    places = atlas.lay_out(activations.astype(np.float32))
    assert places.min() > 0 and places.max() < 1
    cells, means = atlas.make_cells(places, activations, groups.tolist(), CLASSES, digits.splits["test"], indices)
    assert sum(cell.count for cell in cells) == 90 and means.shape == (len(cells), 12)
    assert np.average([cell.share for cell in cells], weights=[cell.count for cell in cells]) > 0.95
    assert all(CLASSES[groups[cell.nearest]] == cell.label for cell in cells if cell.share == 1)


def test_the_atlas_is_a_picture_and_a_page(
    lenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(atlas, "MOST", 60)
    monkeypatch.setattr(atlas, "PAYS", 0)
    assert orchard("explain", lenet, "--method", "atlas", "--data", "digits", "--out", tmp_path, "--json") == 0
    out = capsys.readouterr()
    found = json.loads(out.out)
    assert found["images"] == 60 and sum(cell["count"] for cell in found["cells"]) == 60
    assert "too large" in out.err and max(Image.open(tmp_path / "atlas.png").size) > 1500
    page = (tmp_path / "atlas.html").read_text()
    assert "script-src 'unsafe-inline'" in page and page.count("<img") == 1
