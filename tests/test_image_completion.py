"""Training models of pixels and putting them to work: both objectives, completions, samples, layers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import orchard
from PIL import Image
from safetensors.torch import save_file

from orchard.app.evaluate import evaluate
from orchard.app.importing import import_checkpoint
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.data.palette import FILE
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.tasks.image_completion.pipeline import ImageCompleter
from orchard.tasks.image_completion.settings import Options
from orchard.weights.official import export_official

SMALL: dict[str, Any] = {
    "architecture": {"width": 16, "depth": 2, "heads": 2},
    "image_size": 8,
    "batch_size": 32,
    "max_steps": 40,
    "palette.colours": 6,
    "optimizer.lr": 1e-2,
    "schedule.warmup_steps": 4,
    "loggers": (),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pixels") / "run"
    train("imagegpt_nano", "digits", out, **SMALL)
    return out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two images of another size."""
    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(noise.integers(0, 256, (20, 20), np.uint8)).save(folder / f"{name}.png")
    return [str(folder / f"{name}.png") for name in "ab"]


def test_a_run_learns_more_than_how_often_a_colour_comes(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    found = metrics["test"]
    assert found["bits_per_pixel"] < found["unigram_bits_per_pixel"] < np.log2(6)
    assert 0.4 < found["accuracy"] < 1 and metrics["colours"] == 6
    settings = json.loads((run / "settings.json").read_text())
    assert settings["objective"]["value"] == "autoregressive"
    again = evaluate(run, "digits")["test"]
    assert again == pytest.approx(found)
    page = (run / "report.html").read_text()
    assert page.count('alt="Sample ') == 24 and page.count('alt="Image ') == 8 * 5
    assert np.load(run / "model" / FILE).shape == (6, 1)


def test_the_given_part_stays_and_the_seed_decides_the_rest(run: Path, pictures: list[str]) -> None:
    completer = ImageCompleter(load(run))
    given = completer.read(pictures)
    found = completer.generate(given, Options(count=3, keep=0.3))  # of eight rows two
    assert found.shape == (6, 64)
    assert torch.equal(found[:, :16], given[:, :16].repeat_interleave(3, 0))
    assert len({tuple(row) for row in found.tolist()}) == 6
    assert torch.equal(found, completer.generate(given, Options(count=3, keep=0.3)))
    alone = completer.generate(given[1:], Options(count=1, keep=0.3))
    assert torch.equal(alone[0], found[3])  # whatever is made beside it
    assert not torch.equal(found, completer.generate(given, Options(count=3, keep=0.3, seed=1)))
    greedy = completer.generate(given[:1], Options(count=2, temperature=0))
    assert torch.equal(greedy[0], greedy[1])


def test_more_images_than_fit_side_by_side(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    completer = ImageCompleter(load(run))
    whole = completer.generate(None, Options(count=5))
    monkeypatch.setattr("orchard.tasks.image_completion.pipeline.ROWS", 2)
    told: list[float] = []
    assert torch.equal(completer.generate(None, Options(count=5), told.append), whole)
    assert told == sorted(told) and told[-1] == 1.0


def test_commands_write_images_and_a_sheet(
    run: Path, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "whole"
    assert orchard("generate", run, "--count", 3, "--out", out, "--json") == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["pictures"] == [str(out / f"{n}.png") for n in range(3)] and Path(answer["sheet"]).is_file()
    assert Image.open(out / "0.png").size == (8, 8)
    assert list(pipeline(run)(count=3)[2].getdata()) == list(Image.open(out / "2.png").getdata())
    out = tmp_path / "parts"
    assert orchard("predict", run, *pictures, "--count", 2, "--keep", 0.5, "--out", out, "--json") == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["prompt"], second["prompt"]) == tuple(pictures) and second["pictures"][-1].endswith("3.png")
    assert Image.open(out / "sheet.png").size == (4 * 10 - 2, 2 * 10 - 2)  # part, two completions, image
    assert list(pipeline(run)(pictures, count=2)[3].getdata()) == list(Image.open(out / "3.png").getdata())
    (tmp_path / "bad.png").write_text("no image")
    assert orchard("generate", run, tmp_path / "bad.png", "--out", tmp_path / "none") == 1
    assert "bad.png" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_masked_pixels_are_learned_and_shown_but_not_written(tmp_path: Path) -> None:
    out = tmp_path / "bert"
    train("imagegpt_nano", "digits", out, **{**SMALL, "objective": "bert", "mask_share": 0.3})
    found = json.loads((out / "metrics.json").read_text())["test"]
    assert found["bits_per_pixel"] < found["unigram_bits_per_pixel"]
    assert evaluate(out, "digits")["test"] == pytest.approx(found)
    assert (out / "report.html").read_text().count('alt="Image ') == 8 * 3
    with pytest.raises(UsageError, match=r"learned masked pixels .* train with --set objective=autoregressive"):
        pipeline(out)
    with pytest.raises(UsageError, match="learned by the objective bert; leave out objective=autoregressive"):
        train("imagegpt_nano", "digits", tmp_path / "more", start_from=str(out), objective="autoregressive")


def test_a_training_goes_on_with_its_palette(run: Path, tmp_path: Path) -> None:
    short = {"start_from": str(run), "max_steps": 1, "loggers": ()}
    train("imagegpt_nano", "digits", tmp_path / "more", **short)
    assert (tmp_path / "more" / "model" / FILE).read_bytes() == (run / "model" / FILE).read_bytes()
    with pytest.raises(UsageError, match="keeps the palette it has"):
        train("imagegpt_nano", "digits", tmp_path / "other", **short, **{"palette.colours": 3})
    (tmp_path / "more" / "model" / FILE).unlink()
    with pytest.raises(OrchardError, match=f"has no {FILE}; put there the palette"):
        pipeline(tmp_path / "more")


def test_every_layer_is_judged_beside_the_pixels(run: Path) -> None:
    task = "image-feature-extraction"
    found = evaluate(run, "digits", task=task, settings={"evaluation.layer": "all", "evaluation.images": 150})["test"]
    names = {f"{name}_{of}" for name in ("knn_accuracy", "linear_accuracy") for of in
             ("layer_0", "layer_1", "layer_2", "pixels")}  # fmt: skip
    assert found.keys() == names | {"training_images"}
    middle = evaluate(run, "digits", task=task, settings={"evaluation.images": 150})["test"]
    assert middle["linear_accuracy"] == pytest.approx(found["linear_accuracy_layer_1"])
    assert pipeline(task, run)(torch.zeros(1, 8, 8, dtype=torch.uint8)).shape == (1, 16)
    with pytest.raises(UsageError, match=r"'evaluation\.layer' is 3, expected 0 to 2"):
        evaluate(run, "digits", task=task, settings={"evaluation.layer": 3})


def test_official_weights_come_with_their_palette(tmp_path: Path) -> None:
    sizes = {"width": 16, "depth": 1, "heads": 2, "vocabulary": 8, "image_size": 4}
    save_file(export_official(create_model("imagegpt_s", **sizes), "openai"), tmp_path / "model.safetensors")
    overrides = {key: sizes[key] for key in ("width", "depth", "heads")}
    imported = import_checkpoint(
        "imagegpt_s", tmp_path / "model.safetensors", tmp_path / "bare", "openai", overrides=overrides
    )
    assert "without a palette it draws nothing" in imported.remarks[0]
    centers = tmp_path / "kmeans_centers.npy"
    np.save(centers, np.random.default_rng(0).uniform(-1, 1, (8, 3)).astype(np.float32))
    import_checkpoint("imagegpt_s", tmp_path / "model.safetensors", tmp_path / "whole", "openai", overrides=overrides)
    assert pipeline(tmp_path / "whole")(count=2)[1].mode == "RGB"
    np.save(centers, np.zeros((7, 3), np.float32))
    with pytest.raises(OrchardError, match="has 7 colours of 3 channels, the model takes 8 of 3"):
        import_checkpoint(
            "imagegpt_s", tmp_path / "model.safetensors", tmp_path / "no", "openai", [centers], overrides=overrides
        )
