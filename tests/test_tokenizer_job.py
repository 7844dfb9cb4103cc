"""Training image tokenizers: exact like every training, from pictures of any kind, and whole at the end."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from stopping import stopped_after

from orchard.app.train import train
from orchard.data.captions import CaptionSettings, write_row
from orchard.data.settings import CaptionSource
from orchard.data.unlabelled import open_pictures
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load
from orchard.nn.perceptual import Lpips
from orchard.tasks.image_tokenization.job import evaluate_loaded
from orchard.weights.portable import fingerprint_of

SMALL: dict[str, Any] = {
    "architecture": {"width": 8, "groups": 4, "latent": 8, "codes": 16},
    "image_size": 16,
    "batch_size": 64,
    "max_steps": 6,
    "log_every": 2,
    "precision": "fp32",
    "tokenization": {
        "discriminator_weight": 0.5,
        "discriminator_start": 2,
        "discriminator_width": 4,
        "discriminator_layers": 1,
    },
}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twenty RGB pictures of 20 x 18 pixels that stand in no class folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    chance = np.random.default_rng(0)
    for number in range(20):
        Image.fromarray(chance.integers(0, 256, (18, 20, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def test_stopped_and_gone_on_with_ends_in_the_same_bits(tmp_path: Path) -> None:
    settings = {**SMALL, "ema": 0.9}
    whole = train("vqgan_nano", "digits", tmp_path / "whole", **settings)
    with stopped_after(3, 6):
        train("vqgan_nano", "digits", tmp_path / "parts", **settings)
    again = train("vqgan_nano", "digits", tmp_path / "parts", **settings)
    assert again["test"] == whole["test"]
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_run_has_figures_a_model_and_a_report(tmp_path: Path) -> None:
    metrics = train("vqgan_nano", "digits", tmp_path / "run", **SMALL)
    assert set(metrics["test"]) == {"psnr", "ssim", "l1", "codebook_use", "code_perplexity"}
    loaded = load(tmp_path / "run")
    assert metrics["parameters"] == sum(p.numel() for p in loaded.model.parameters())
    assert loaded.classes == ()
    assert loaded.facts == {"codes": 16, "grid": [4, 4], "fingerprint": fingerprint_of(loaded.model)}
    lowest = loaded.pictures.normalise(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
    assert lowest.flatten().tolist() == pytest.approx([-1, 1])
    figures = evaluate_loaded(loaded, "digits", "test", CaptionSource(source="digits"))
    assert figures.pop("count") == 360
    assert figures == pytest.approx(metrics["test"], rel=1e-4)
    with pytest.raises(UsageError, match="digits has no dev split; it has train"):
        evaluate_loaded(loaded, "digits", "dev", CaptionSource(source="digits"))
    page = (tmp_path / "run" / "report.html").read_text()
    open_tags: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "img", "line", "rect", "path", "circle", "br"):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag not in ("line", "rect", "path", "circle"):
                assert open_tags.pop() == tag

    Tags().feed(page)
    assert not open_tags
    for words in ("Its reconstruction", "Worst reconstructions", "Codebook usage", "Discriminator&#39;s weight"):
        assert words in page
    seen = load_file(tmp_path / "run" / "evaluation" / "test.safetensors")
    assert int(seen["counts"].sum()) == len(seen["error"]) * 16


def test_training_goes_on_from_the_weights_of_another_run(tmp_path: Path, pictures: Path) -> None:
    plain = {**SMALL, "tokenization": {"discriminator_weight": 0}, "max_steps": 2}
    train("vqgan_nano", str(pictures), tmp_path / "first", **plain)
    settings = {**plain, "start_from": str(tmp_path / "first"), "optimizer.lr": 1e-12}
    train("vqgan_nano", str(pictures), tmp_path / "second", **settings)
    one, two = (load(tmp_path / name).model for name in ("first", "second"))
    assert torch.allclose(one.decoder.conv_out.weight, two.decoder.conv_out.weight, atol=1e-6)  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="holds a vqgan_nano, not a vqgan_tiny"):
        train("vqgan_tiny", str(pictures), tmp_path / "third", **settings)


def test_a_frozen_distance_is_no_part_of_the_model(tmp_path: Path, pictures: Path) -> None:
    tensors = {}
    for name, tensor in Lpips().state_dict().items():
        kind, _, place = name.partition(".")
        number, *rest = place.split(".")
        if kind == "weights":
            tensors[f"lin{number}.model.1.weight"] = tensor.view(1, -1, 1, 1)
        elif kind == "stages":
            flat = sum((4, 5, 7, 7, 7)[: int(number)]) + int(rest[0])
            tensors[f"features.{flat}.{rest[1]}"] = tensor
    save_file(tensors, tmp_path / "lpips.safetensors")
    tokenization = {"discriminator_weight": 0, "perceptual_files": [str(tmp_path / "lpips.safetensors")]}
    settings = {**SMALL, "max_steps": 1, "batch_size": 4, "ema": 0.9, "tokenization": tokenization}
    metrics = train("vqgan_nano", str(pictures), tmp_path / "run", **settings)
    assert metrics["parameters"] < 100_000
    assert not [name for name in load_file(tmp_path / "run" / "model" / "model.safetensors") if "perceptual" in name]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_size": 15}, "15 pixels does not divide into cells of 4"),
        ({"label_smoothing": 0.1}, "is for image-classification, text-classification, text2text-generation; vqgan"),
        ({"augmentation.mixup": 0.2}, "setting 'augmentation.mixup' is for image-classification; vqgan_nano"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        train("vqgan_nano", "digits", tmp_path / "run", **{**SMALL, **change})


def test_pictures_are_found_however_they_are_kept(tmp_path: Path, pictures: Path) -> None:
    settings = CaptionSettings()
    data = open_pictures(str(pictures), settings)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 14, "validation": 2, "test": 4}
    assert data.channels == 3 and data.splits["train"].small

    deep = tmp_path / "deep"
    for split in ("train", "val"):
        (deep / split / "some" / "where").mkdir(parents=True)
    for number, picture in enumerate(sorted(pictures.iterdir())):
        picture.rename(deep / ("val" if number < 5 else "train") / "some" / "where" / picture.name)
    data = open_pictures(str(deep), settings)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 15, "validation": 5}

    table = tmp_path / "list.csv"
    files = sorted(path.relative_to(tmp_path) for path in deep.rglob("*.png"))
    table.write_text("path,label\n" + "".join(f"{path},{n % 2}\n" for n, path in enumerate(files)))
    assert open_pictures(str(table), settings).format == "table"

    with (tmp_path / "rows.tsv").open("w", newline="") as file:
        for n, path in enumerate(files):
            with Image.open(tmp_path / path) as picture:
                file.write(write_row(str(n), "a picture", picture))
    assert open_pictures(str(tmp_path / "rows.tsv"), settings).format == "picture TSV"

    (deep / "captions.txt").write_text("".join(f"{path.name}\tnoise\n" for path in files))
    assert open_pictures(str(deep), settings).format == "caption folder"


def test_a_place_without_pictures_says_what_was_expected(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(OrchardError, match=r"there is no picture in .*empty; expected files such as"):
        open_pictures(str(tmp_path / "empty"), CaptionSettings())
    (pictures / "3.png").write_bytes(b"no picture")
    with pytest.raises(OrchardError, match=r"1 of 20 pictures cannot be read: 3\.png"):
        open_pictures(str(pictures), CaptionSettings())
    data = open_pictures(str(pictures), CaptionSettings(bad_records="skip"))
    assert sum(map(len, data.splits.values())) == 19
    assert [problem.key for problem in data.problems] == ["3.png"]
    with pytest.raises(UsageError, match="there is no file or folder"):
        open_pictures(str(tmp_path / "nowhere"), CaptionSettings())


def test_grey_pictures_give_a_grey_tokenizer(tmp_path: Path) -> None:
    metrics = train("vqvae_nano", "digits", tmp_path / "run", max_steps=1, image_size=16)
    assert load(tmp_path / "run").model.config.in_channels == 1
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["task"] == metrics["task"]
