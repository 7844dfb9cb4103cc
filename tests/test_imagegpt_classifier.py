"""Image GPT as a classifier: from a run of pixels through the same commands, both losses, names in and out."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import orchard
from safetensors.torch import load_file, save_file

from orchard.app.evaluate import evaluate
from orchard.app.importing import import_checkpoint
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.data.batches import ImageBatch
from orchard.data.palette import FILE, Palette
from orchard.errors import OrchardError, UsageError
from orchard.models import create_model
from orchard.nn.pixels import even_colours, nearest_colours
from orchard.tasks.image_classification.objective import ImageClassification
from orchard.tasks.image_classification.settings import JointSettings
from orchard.weights.official import export_official
from orchard.weights.portable import Portable, architecture_of, save_portable

PIXELS: dict[str, Any] = {"width": 16, "depth": 2, "heads": 2, "vocabulary": 6}
SMALL: dict[str, Any] = {"batch_size": 32, "loggers": ()}


def small(**changes: Any) -> Any:
    """A small classifier of grey images whose heads are not zero."""
    torch.manual_seed(0)
    settings = {**PIXELS, **changes}
    model: Any = create_model("imagegpt_classifier_nano", image_size=4, num_classes=3, trunk_settings=settings).eval()
    for head in (model.head, model.trunk.head):
        torch.nn.init.normal_(head.weight)
    return model


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of pixels with its palette."""
    folder = tmp_path_factory.mktemp("pixels") / "model"
    model = create_model("imagegpt_nano", **PIXELS, image_size=8)
    Palette(torch.linspace(-0.9, 0.7, 6)[:, None]).save(folder)
    preprocess = {"size": (8, 8), "channels": 1, "mean": (0.5,), "std": (0.5,), "resize": "stretch"}
    about = Portable("imagegpt_nano", architecture_of(model), "image-completion", preprocess=preprocess)
    save_portable(folder, model, about)
    return folder


def test_a_classifier_starts_from_a_model_of_pixels_and_learns_both(
    pixels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    changes = {"optimizer.lr": 1e-8, "max_steps": 2, "log_every": 1, "head_epochs": 0}
    metrics = train("imagegpt_classifier_nano", "digits", out, **SMALL, start_from=str(pixels), **changes)
    assert "the head is fresh" in capsys.readouterr().err
    began, learned = load_file(out / "model/model.safetensors"), load_file(pixels / "model.safetensors")
    for name, tensor in learned.items():
        torch.testing.assert_close(began[f"trunk.{name}"], tensor, atol=1e-6, rtol=0)
    assert np.array_equal(began["palette"].numpy(), np.load(pixels / FILE))

    with (out / "log.csv").open() as file:
        first = next(csv.DictReader(file))
    assert float(first["generative_loss"]) == pytest.approx(math.log(6), abs=1e-4)  # both heads begin at zero
    assert float(first["loss"]) == pytest.approx(math.log(6) + math.log(10), abs=1e-3)
    assert evaluate(out, "digits")["test"]["accuracy"] == pytest.approx(metrics["test"]["accuracy"])
    assert len(pipeline(out)([np.zeros((8, 8), np.uint8)])[0].top) == 5
    assert pipeline("image-feature-extraction", out)([np.zeros((8, 8), np.uint8)]).shape == (1, 16)
    assert (out / "report.html").exists()


def test_what_does_not_fit_is_one_line(pixels: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'joint.generative': vit_nano has no generative loss; leave it out"):
        train("vit_nano", "digits", tmp_path / "a", **SMALL, **{"joint.generative": 0.5})
    with pytest.raises(UsageError, match="holds a imagegpt_nano, not a vit_nano; train imagegpt_nano from it"):
        train("vit_nano", "digits", tmp_path / "b", **SMALL, start_from=str(pixels))
    with pytest.raises(UsageError, match="holds a imagegpt_nano, not a imagegpt_classifier_s"):
        train("imagegpt_classifier_s", "digits", tmp_path / "c", **SMALL, start_from=str(pixels))
    with pytest.raises(UsageError, match="mask_share is 0, expected more than 0"):
        create_model("imagegpt_classifier_nano", mask_share=0)
    with pytest.raises(OrchardError, match="only the head and the image size may change"):
        train("imagegpt_classifier_nano", "digits", tmp_path / "d", **SMALL, start_from=str(pixels), image_size=10)
    bare = shutil.copytree(pixels, tmp_path / "bare")
    (bare / FILE).unlink()
    with pytest.raises(OrchardError, match=f"{FILE} cannot be read"):
        train("imagegpt_classifier_nano", "digits", tmp_path / "e", **SMALL, start_from=str(bare))


def test_the_joint_loss_is_the_weighted_sum_of_both() -> None:
    model, generator = small(), torch.Generator().manual_seed(1)
    images = torch.rand(3, 1, 4, 4, generator=generator) * 2 - 1
    batch = ImageBatch(images, torch.arange(3), torch.arange(3))
    colours = (images.flatten(2).transpose(1, 2) - model.palette[:, 0]).abs().argmin(-1)
    generative = F.cross_entropy(model.trunk(model.trunk.as_input(colours)).flatten(0, 1), colours.flatten())
    classes = F.cross_entropy(model(images), torch.arange(3))
    for joint, expected in (
        (JointSettings(), classes + generative),
        (JointSettings(classification=0.3, generative=2), 0.3 * classes + 2 * generative),
        (JointSettings(generative=0), classes),
    ):
        loss, figures = ImageClassification("abc", joint=joint).loss(model, batch)
        torch.testing.assert_close(loss, expected)
        assert ("generative_loss" in figures) == bool(joint.generative)


def test_where_masked_pixels_are_asked_for_training_masks_and_answers_do_not() -> None:
    model, images = small(causal=False), torch.rand(2, 1, 4, 4) * 2 - 1
    torch.testing.assert_close(model(images), model(images))
    torch.manual_seed(3)
    logits, loss = model.forward_with_generation(images)
    torch.manual_seed(3)
    masked = torch.rand(2, 16) < model.config.mask_share
    assert 0 < masked.sum() < 32 and not torch.equal(logits, model(images))
    nats = F.cross_entropy(
        model.trunk(model.colours(images).masked_fill(masked, 6)).transpose(1, 2),
        model.colours(images),
        reduction="none",
    )
    each = [nats[n][masked[n]].mean() if masked[n].any() else torch.zeros(()) for n in range(2)]
    torch.testing.assert_close(loss, torch.stack(each).mean())


def test_an_even_palette_covers_the_cube() -> None:
    assert torch.equal(even_colours(5, 1)[:, 0], torch.linspace(-1, 1, 5))
    colours = even_colours(512, 3)
    assert len({tuple(row) for row in colours.tolist()}) == 512 and set(colours.flatten().tolist()) == set(
        torch.linspace(-1, 1, 8).tolist()
    )
    assert len({tuple(row) for row in even_colours(20, 3).tolist()}) == 20
    tokens = nearest_colours(colours.T.reshape(1, 3, 16, 32), colours)
    assert torch.equal(tokens[0], torch.arange(512))


def test_official_files_go_in_and_out_without_a_palette(tmp_path: Path) -> None:
    model = small()
    for source in ("openai", "hf"):
        if source == "hf":
            with pytest.raises(OrchardError, match=r"no rule for 'trunk.head.weight', .* not zero"):
                export_official(model, source)
            torch.nn.init.zeros_(model.trunk.head.weight)
        theirs = export_official(model, source)
        assert ("model/clf/wclf" if source == "openai" else "score.weight") in theirs
        save_file(theirs, tmp_path / f"{source}.safetensors")
        shape = {"trunk_settings": {**PIXELS, "vocabulary": 9}}  # what the file says of the palette is read
        with pytest.raises(OrchardError):
            import_checkpoint(
                "imagegpt_classifier_nano", tmp_path / f"{source}.safetensors", tmp_path / "x", overrides=shape
            )
        shape = {"trunk_settings": PIXELS}
        found = import_checkpoint(
            "imagegpt_classifier_nano", tmp_path / f"{source}.safetensors", tmp_path / source, overrides=shape
        )
        state, ours = load_file(tmp_path / source / "model.safetensors"), model.state_dict()
        assert all(torch.equal(state[name], ours[name]) for name in ours)
        assert len(found.official.about.classes) == 3


def test_the_command_line_knows_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert orchard("show", "imagegpt_classifier_nano", "--json") == 0
    assert json.loads(capsys.readouterr().out)["task"] == "image-classification"
