"""Features without labels, through the same commands: train, resume, evaluate, predict; a classifier from a trunk."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import orchard
from PIL import Image
from safetensors.torch import load_file
from stopping import stopped_after

from orchard.app.evaluate import evaluate
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.data.settings import PictureSource
from orchard.data.unlabelled import open_with_classes
from orchard.errors import UsageError
from orchard.models import create_model
from orchard.tasks.image_feature_extraction.features import SplitFeatures, extract, knn_accuracy
from orchard.tasks.image_feature_extraction.settings import EvaluationSettings

SMALL: dict[str, Any] = {
    "image_size": 8,
    "batch_size": 64,
    "max_steps": 6,
    "evaluate_steps": 3,
    "checkpoint_steps": 2,
    "contrast.queue": 96,
    "evaluation.images": 200,
    "loggers": (),
}
TRUNK = {"depths": (1,), "widths": (16,)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One training with a queue, without interruption, and without classes of its own."""
    out = tmp_path_factory.mktemp("runs") / "moco"
    train("moco_nano", "digits", out, **SMALL, architecture={"trunk_settings": TRUNK})
    return out


def test_queue_and_key_encoder_are_resumed_to_the_bit(run: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "architecture": {"trunk_settings": TRUNK}}
    with stopped_after(4, 6):
        train("moco_nano", "digits", tmp_path / "parts", **settings)
    train("moco_nano", "digits", tmp_path / "parts", **settings)
    for file in ("model/model.safetensors", "evaluation/features.safetensors"):
        one, two = load_file(run / file), load_file(tmp_path / "parts" / file)
        assert all(torch.equal(tensor, two[name]) for name, tensor in one.items()), file
    newest = [sorted((folder / "checkpoints").iterdir())[-1] for folder in (run, tmp_path / "parts")]
    one, two = (load_file(folder / "model.safetensors") for folder in newest)
    assert {"queue", "pointer", "key.trunk.conv1.weight"} <= one.keys()
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_the_run_has_metrics_a_model_and_a_report(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    names = {"contrastive_loss", "view_accuracy", "knn_accuracy", "linear_accuracy"}
    assert metrics["test"].keys() == names and metrics["task"] == "image-feature-extraction"
    assert metrics["parameters"] == sum(p.numel() for p in pipeline(run).model.parameters())  # the query encoder's
    page = (run / "report.html").read_text()
    assert "Nearest images" in page and "Map of features" in page and page.count("<circle") > 200


def test_evaluate_gives_knn_and_linear_accuracy_of_labelled_images(run: Path) -> None:
    found = evaluate(run, "digits", settings={"evaluation.k": 1, "evaluation.images": 150})
    assert found["test"].keys() == {"training_images", "knn_accuracy", "linear_accuracy"} and found["count"] == 150
    assert found["test"]["knn_accuracy"] > 0.5
    with pytest.raises(UsageError, match=r"setting 'evaluation.C'.*greater than 0"):
        evaluate(run, "digits", settings={"evaluation.C": 0})


def test_predict_writes_features_as_npz(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, out = tmp_path / "photos", tmp_path / "features.npz"
    photos.mkdir()
    for number in range(3):
        Image.fromarray(np.full((8, 8), 40 * number, np.uint8)).save(photos / f"{number}.png")
    assert orchard("predict", run, photos, "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["images"] == 3
    found = np.load(out)
    assert found["features"].shape == (3, 16) and found["features"].dtype == np.float32
    ask = pipeline("image-feature-extraction", run)
    assert np.allclose(ask([np.full((8, 8), 40, np.uint8)])[0], found["features"][1], atol=1e-5)
    assert [Path(name).name for name in found["names"]] == ["0.png", "1.png", "2.png"]
    (photos / "broken.png").write_bytes(b"\x89PNG")
    assert orchard("predict", run, photos, "--out", out) == 1
    assert "1 of 4 images cannot be read" in capsys.readouterr().err and len(np.load(out)["names"]) == 3
    assert orchard("predict", run, photos, "--out", tmp_path / "features.txt") == 2
    assert orchard("predict", run, photos, "--csv", tmp_path / "features.csv") == 1
    assert len((tmp_path / "features.csv").read_text().splitlines()) == 5


def test_predict_writes_a_data_set_with_its_labels(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "digits.npz"
    assert orchard("predict", run, "digits", "--split", "all", "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(out), "images": 1797, "features": 16}
    found = np.load(out)
    splits = open_with_classes("digits", PictureSource(source="digits")).splits
    assert found["features"].shape == (1797, 16) and found["features"].dtype == np.float32
    assert dict(zip(*np.unique(found["splits"], return_counts=True), strict=True)) == {
        name: len(split) for name, split in splits.items()
    }
    test = found["splits"] == "test"
    assert found["names"][test].tolist() == [splits["test"].key(n) for n in range(test.sum())]
    assert np.array_equal(found["labels"][test], splits["test"].labels) and found["classes"][3] == "3"
    known, asked = (
        SplitFeatures(found["features"][rows], found["labels"][rows], np.arange(rows.sum()))
        for rows in (found["splits"] == "train", test)
    )
    expected = evaluate(run, "digits")["test"]["knn_accuracy"]
    assert knn_accuracy(known, asked, EvaluationSettings()) == pytest.approx(expected)

    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        Image.fromarray(np.full((8, 8), 40 * number, np.uint8)).save(photos / f"{number}.png")
    assert orchard("predict", run, photos, "--split", "all", "--out", out) == 0
    assert "names and features of 4" in capsys.readouterr().out and "labels" not in np.load(out)
    assert orchard("predict", run, "digits", photos, "--split", "test") == 2
    assert "one data set, got 2 items" in capsys.readouterr().err


def test_neighbours_vote_by_their_similarity() -> None:
    """Two of class 1 at cosine 0.8 against one of class 0 at cosine 1: at a low temperature the near one wins."""
    vectors = np.array([[1, 0], [0.8, 0.6], [0.8, -0.6]], np.float32)
    known = SplitFeatures(vectors, np.array([0, 1, 1]), np.arange(3))
    asked = SplitFeatures(np.array([[2, 0]], np.float32), np.array([0]), np.arange(1))
    assert knn_accuracy(known, asked, EvaluationSettings(k=3)) == 0
    for temperature, right in ((0.07, 1), (1e-4, 1), (0.28, 1), (0.30, 0)):  # even at 0.2 / log 2 = 0.289
        assert knn_accuracy(known, asked, EvaluationSettings(k=3, temperature=temperature)) == right


def test_a_classifier_starts_from_the_trunk_and_gives_features_too(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"max_steps": 2, "data.labels_per_class": 4, "start_from": str(run), "loggers": ()}
    metrics = train("resnet_nano", "digits", tmp_path / "probe", **settings, freeze_trunk=True, head_epochs=0)
    assert metrics["parameters"] < 8000  # the trunk's settings came with it
    ours, theirs = load_file(run / "model/model.safetensors"), load_file(tmp_path / "probe/model/model.safetensors")
    assert all(torch.equal(ours[f"trunk.{name}"], theirs[name]) for name in theirs if not name.startswith("head."))
    counts = json.loads((tmp_path / "probe/run.json").read_text())["data"]["counts"]
    assert counts["train"] == 40 and counts["test"] > 300
    assert "the head is fresh" in capsys.readouterr().err
    with pytest.raises(
        UsageError, match="holds a moco_nano on a trunk resnet_nano, not a vit_nano; train moco_nano or"
    ):
        train("vit_nano", "digits", tmp_path / "vit", **settings)
    picture = tmp_path / "one.png"
    Image.fromarray(np.full((8, 8), 99, np.uint8)).save(picture)
    words = ("predict", tmp_path / "probe", picture, "--json")
    assert orchard(*words, "--task", "image-feature-extraction") == 0
    assert len(json.loads(capsys.readouterr().out)[0]["features"]) == 16
    assert orchard(*words) == 0 and "top" in capsys.readouterr().out
    features = pipeline("image-feature-extraction", tmp_path / "probe")(picture)
    assert np.allclose(features, pipeline(run)(picture), atol=1e-5)  # a frozen trunk gives what it gave before
    assert orchard("predict", run, picture, "--task", "image-classification") == 2
    found = evaluate(tmp_path / "probe", "digits", task="image-feature-extraction")
    assert found["task"] == "image-feature-extraction" and found["test"]["linear_accuracy"] > 0.5


def test_features_of_any_classifier_are_what_its_head_is_given() -> None:
    for name, width in (("lenet5", 84), ("vit_nano", 64), ("squeezenet1_1", 512)):
        model = create_model(name).eval()
        images = torch.randn(2, model.config.in_channels, *(2 * (model.config.image_size,)))
        assert extract(model, images).shape == (2, width), name
    with pytest.raises(UsageError, match="has no head"):
        extract(create_model("dcgan_nano"), torch.zeros(1, 1, 28, 28))


def test_images_have_classes_where_all_have_one(photos: Path, tmp_path: Path) -> None:
    settings = PictureSource(source="")
    assert open_with_classes(str(photos), settings).classes == ("ant", "bee", "cat")
    for number in range(30):
        (tmp_path / f"{number}.png").write_bytes(b"")
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "album").mkdir()
    for number in range(4):
        Image.fromarray(np.full((8, 8, 3), 99 + number, np.uint8)).save(tmp_path / "album" / f"{number}.png")
    found = open_with_classes(str(tmp_path), settings)
    assert len(found.classes) == 1 and sum(map(len, found.splits.values())) == 34
    metrics = train("simclr_nano", str(tmp_path), tmp_path / "run", **{**SMALL, "batch_size": 16, "max_steps": 2})
    assert metrics["validation"].keys() == {"contrastive_loss", "view_accuracy"}


def test_data_check_takes_images_alone_for_a_model_that_asks_for_no_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        Image.fromarray(np.full((20, 24), 20 * number, np.uint8)).save(tmp_path / f"{number}.png")
    for name in ("simclr_nano", "edsr_nano"):
        assert orchard("data", "check", tmp_path, "--model", name, "--json", "--mosaic", tmp_path.parent / "m.png") == 0
        found = json.loads(capsys.readouterr().out)
        assert found["classes"] == ["picture"] and found["ok"]
    assert (tmp_path.parent / "m.png").stat().st_size > 100
    assert orchard("data", "check", tmp_path, "--model", "lenet5") == 1
    assert "stand in no class folder" in capsys.readouterr().err
